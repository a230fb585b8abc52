"""The time-masked causal Transformer, trained with CTC.

python -m experiments.train --config=configs/transformer.py --config.data.root=DATA --workdir=RUN

The recipe is that of its authors, with two differences. Their learning rate drops to a tenth after
three fifths of the run; here it falls on a cosine. They also drop attention weights; here no
weights are dropped. Its authors use no session adaptation: they found it to do harm. Variants,
after a colon:

(none)   The recipe for T15, 9.7 million parameters (Brain-to-Text '25). Not trained yet, so there
         is no result.
t12      The recipe for T12 (Brain-to-Text '24), 9.4 million parameters. Not trained yet.
small    A size for two CPU cores and fast speech, 0.8 million parameters. Spoken digits: 4.37 % val
         PER (one seed), 9.4 minutes on a busy machine.
demo     A size for two CPU cores and simulated data of T15's shape.
stream80 A recipe that streams: it needs no bin later than 80 ms after a frame. Also stream0 and
         stream160, and all three of a smaller size: small+stream80, demo+stream0, and so on.
         docs/streaming.md has what they wait for. Not trained yet.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(variant: str = "") -> ConfigDict:
    """The recipe named by `variant`: "", "t12", "small", "demo", "stream80", and so on."""
    return common.varied(full(), variant, stream, t12=t12, small=small, demo=demo)


def full() -> ConfigDict:
    """Full size, for T15."""
    config = ConfigDict(
        {
            "data": common.data(),
            "init": common.init(),
            "augment": common.augment(),
            "model": {
                "name": "transformer",  # the model; choose another by its own config file
                "session": "none",  # adaptation to the session: "affine", "layernorm" or "none"
                "smoothing": 2.0,  # deviation of the Gaussian filter, in bins; 0: none
                "patch": 4,  # bins that a frame is made of
                "input_dropout": 0.2,  # probability that a feature of an embedded patch is dropped
                "d": 384,  # width of the blocks
                "layers": 5,  # blocks
                "heads": 6,  # of the attention
                "ff": 1536,  # width of the feed-forward layers
                "dropout": 0.35,  # probability that a feature of a frame is dropped, in the blocks
                "causal": True,  # whether the model can stream: no attention to later chunks
                "chunk": 4,  # bins that a causal model takes at a time
                "left": 1_000,  # past bins that the attention of a causal model keeps
                "least_left": 248,  # in training their number is drawn, and this is the least
                "remat": "none",  # what training computes again to save memory: "blocks", "dots"
                "dtype": "bfloat16",  # of the computation; parameters and losses are float32
            },
            "objective": {
                # each trial's costs are divided by its "frames" or "labels"; or "none", "seed_rule"
                "normalize_by": "labels",
                "weights": {
                    "phoneme": 1.0,  # CTC on phonemes
                    "label_smoothing": 0.0,  # divergence of the phoneme head from uniform
                    "consistency": 0.0,  # CR-CTC between two views, at twice the work; it uses 0.2
                },
            },
            "optimizer": {
                "peak_lr": 2e-3,  # learning rate after the warm-up
                "end_lr": 2e-5,  # learning rate of the last step, on a cosine
                "warmup_steps": 1_260,  # over which the learning rate grows linearly
                "clip_norm": 100.0,  # greatest global norm of the gradient
                "weight_decay": 1e-5,  # of AdamW; not of biases, norms and offsets
                "b1": 0.9,  # decay of AdamW's first moment
                "b2": 0.999,  # decay of AdamW's second moment
                "eps": 1e-8,  # added to the root of AdamW's second moment
                "session_rate": 1.0,  # factor of the learning rate of the session layers
                "decay_sessions": True,  # whether weight decay includes the session layers
            },
            "training": {
                "steps": 63_000,  # updates of the whole run
                "select_by": "per",  # the best model is the lowest in it; "wer" needs data.lexicon
                **common.training(),
            },
            "guard": common.guard(),
        }
    )
    config.update(
        {
            "augment": {
                "white_noise": 0.2,
                "constant_offset": 0.05,
                "random_cut": 0,
                "time_mask_fraction": 0.05,
            },
            "training": {"ema_decay": 0.0},
        }
    )
    return config


def t12(config: ConfigDict) -> None:
    """Full size, for T12."""
    config.update(
        {
            "augment": {"time_mask_fraction": 0.075},
            "model": {"patch": 5, "chunk": 5, "least_left": 250},
            "optimizer": {
                "peak_lr": 1e-3,
                "end_lr": 1e-5,
                "clip_norm": 1e6,  # none
            },
            "training": {"steps": 34_500},
        }
    )


def small(config: ConfigDict) -> None:
    """Two CPU cores, fast speech."""
    config.update(common.small())
    config.update(
        {
            "data": {"buckets": 3},
            "augment": {"constant_offset": 0.05},
            "model": {
                "patch": 2,
                "input_dropout": 0.1,
                "d": 128,
                "layers": 4,
                "heads": 4,
                "ff": 512,
                "dropout": 0.1,
                "chunk": 2,
                "least_left": 250,
                "dtype": "float32",
            },
            "optimizer": {"warmup_steps": 50},
            "training": {"steps": 600, "ema_decay": 0.0},
        }
    )


def demo(config: ConfigDict) -> None:
    """Two CPU cores, simulated data of 512 channels at the speed of T15."""
    small(config)
    config.update(
        {
            "data": {"root": "runs/simulated", "buckets": 2},
            "model": {"patch": 4, "chunk": 4, "least_left": 248},
            "optimizer": {"warmup_steps": 33},
            "training": {"steps": 400, "eval_every": 100, "save_every": 200},
        }
    )


def stream(config: ConfigDict, lookahead: int) -> None:
    """A look-ahead of so many bins: the first four are for smoothing, the others for the chunk."""
    model = config.to_dict()["model"]
    chunk = model["patch"] + max(0, lookahead - 4)
    pasts = {key: model[key] - model[key] % chunk for key in ("left", "least_left")}
    config.update({"model": {"smoothing": 2.0 if lookahead else 0.0, "chunk": chunk, **pasts}})
