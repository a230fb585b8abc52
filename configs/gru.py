"""The official baseline of the Brain-to-Text benchmarks: gated recurrent units trained with CTC.

python -m experiments.train --config=configs/gru.py --config.data.root=DATA --workdir=RUN

The recipe is that of its authors. Variants, after a colon:

(none)   The recipe for T15, 44.3 million parameters (Brain-to-Text '25). Not trained yet, so there
         is no result.
t12      The recipe for T12 (Brain-to-Text '24), in two directions;
         --config.model.bidirectional=False has one, which streams. Not trained yet. Its authors use
         Adam with L2 decay and no clipping; here it is AdamW.
small    A size for two CPU cores and fast speech, 0.8 million parameters. Spoken digits: 3.69 % val
         PER (one seed), 7.5 minutes on one core of a busy machine.
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
                "name": "gru",  # the model; choose another by its own config file
                "session": "affine",  # adaptation to the session: "affine", "layernorm" or "none"
                "smoothing": 2.0,  # deviation of the Gaussian filter, in bins; 0: none
                "taps": 0,  # of this filter; 0: those above 1 % of its sum
                "input_dropout": 0.2,  # probability that a channel of one bin is dropped
                "patch": 14,  # bins that a frame is made of
                "stride": 4,  # bins from one frame to the next
                "d": 768,  # width of the recurrent layers
                "layers": 5,  # recurrent layers
                "dropout": 0.4,  # between layers: probability that a feature of a frame is dropped
                "bidirectional": False,  # whether the layers run both ways, and cannot stream
                "remat": "none",  # what training computes again to save memory: "blocks", "dots"
                "dtype": "bfloat16",  # of matrix products; states, parameters, losses are float32
            },
            "objective": {
                # each trial's costs are divided by its "frames" or "labels"; or "none", "seed_rule"
                "normalize_by": "none",
                "weights": {
                    "phoneme": 1.0,  # CTC on phonemes
                    "label_smoothing": 0.0,  # divergence of the phoneme head from uniform
                    "consistency": 0.0,  # CR-CTC between two views, at twice the work; it uses 0.2
                },
            },
            "optimizer": {
                "peak_lr": 5e-3,  # learning rate after the warm-up
                "end_lr": 1e-4,  # learning rate of the last step, on a cosine
                "warmup_steps": 1_000,  # over which the learning rate grows linearly
                "clip_norm": 10.0,  # greatest global norm of the gradient
                "weight_decay": 1e-3,  # of AdamW; not of biases, norms and offsets
                "b1": 0.9,  # decay of AdamW's first moment
                "b2": 0.999,  # decay of AdamW's second moment
                "eps": 0.1,  # added to the root of AdamW's second moment
                "session_rate": 1.0,  # factor of the learning rate of the session layers
                "decay_sessions": True,  # whether weight decay includes the session layers
            },
            "training": {
                "steps": 120_000,  # updates of the whole run
                "select_by": "per",  # the best model is the lowest in it; "wer" needs data.lexicon
                **common.training(),
            },
            "guard": common.guard(),
        }
    )
    config.update(
        {
            "data": {"sessions_per_batch": 4},
            "augment": {"white_noise": 1.0, "time_masks": 0},
            "optimizer": {"decay_sessions": False},
            "training": {"ema_decay": 0.0, "eval_every": 2_000, "save_every": 2_000},
        }
    )
    return config


def t12(config: ConfigDict) -> None:
    """Full size, for T12."""
    config.update(
        {
            "data": {"sessions_per_batch": 0},
            "augment": {"white_noise": 0.8, "random_cut": 0},
            "objective": {"normalize_by": "labels"},
            "model": {
                "taps": 20,
                "input_dropout": 0.0,
                "patch": 32,
                "d": 1024,
                "bidirectional": True,
                "dtype": "float32",
            },
            "optimizer": {
                "peak_lr": 0.02,
                "end_lr": 0.02,
                "warmup_steps": 0,
                "clip_norm": 1e6,  # none
                "weight_decay": 1e-5,
                "decay_sessions": True,
            },
            "training": {"steps": 10_000, "eval_every": 100, "save_every": 500},
        }
    )


def small(config: ConfigDict) -> None:
    """Two CPU cores, fast speech."""
    config.update(common.small())
    config.update(
        {
            "data": {"buckets": 3},
            "augment": {"white_noise": 0.5, "constant_offset": 0.2, "time_masks": 0},
            "model": {"patch": 8, "stride": 2, "d": 192, "layers": 3, "dtype": "float32"},
            "optimizer": {
                "peak_lr": 0.02,
                "end_lr": 2e-4,
                "warmup_steps": 83,
                "decay_sessions": True,
            },
            "training": {"steps": 1_000, "ema_decay": 0.0},
        }
    )


def demo(config: ConfigDict) -> None:
    """Two CPU cores, simulated data of 512 channels at the speed of T15."""
    small(config)
    config.update(
        {
            "data": {"root": "runs/simulated", "buckets": 2},
            "model": {"patch": 14, "stride": 4},
            "training": {"steps": 400, "eval_every": 100, "save_every": 200},
            "optimizer": {"warmup_steps": 33},
        }
    )


def stream(config: ConfigDict, lookahead: int) -> None:
    """A look-ahead of so many bins: the first four are for smoothing, the others for the patch."""
    patch = config.to_dict()["model"]["stride"] + max(0, lookahead - 4)
    config.update({"model": {"smoothing": 2.0 if lookahead else 0.0, "patch": patch}})
