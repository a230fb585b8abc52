"""The single-scale Conformer, trained with CTC: one rate of the multi-scale decoder, alone.

python -m experiments.train --config=configs/conformer.py --config.data.root=DATA --workdir=RUN

Variants, after a colon:

(none)   The sizes of the Conformer in the system this project started from, for T15. Meant for
         large GPUs or TPUs. Not trained yet, so there is no result.
small    A size for two CPU cores and fast speech, 0.8 million parameters. Spoken digits: 1.27 % val
         PER (one seed), 8 minutes on a busy machine.
demo     A size for two CPU cores and simulated data of T15's shape.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(variant: str = "") -> ConfigDict:
    """The recipe named by `variant`: "", "small" or "demo"."""
    return common.varied(full(), variant, small=small, demo=demo)


def full() -> ConfigDict:
    """Full size, for T15."""
    return ConfigDict(
        {
            "data": common.data(),
            "init": common.init(),
            "augment": common.augment(),
            "model": {
                "name": "conformer",  # the model; choose another by its own config file
                "d": 1024,  # width of the Conformer blocks
                "layers": 8,  # Conformer blocks
                "heads": 8,  # of the attention
                "ff": 2048,  # width of the feed-forward layers
                "kernel": 31,  # of the depthwise convolutions, in frames
                "stride": 4,  # bins per frame
                "patch": 32,  # kernel of the strided convolution, in bins
                "dropout": 0.3,  # probability that a feature is dropped for a whole trial
                "stochastic_depth": 0.1,  # of skipping the last block; less for earlier ones
                "session": "affine",  # adaptation to the session: "affine", "layernorm" or "none"
                "smoothing": 2.0,  # deviation of the Gaussian filter, in bins; 0: none
                "interctc": True,  # whether there is a second CTC head, half way up
                "head_scale": 1.0,  # factor of the initial weights of the CTC head
                "causal": False,  # whether the model can stream: no attention to later chunks
                "chunk": 16,  # bins that a causal model takes at a time
                "left": 480,  # past bins that the attention of a causal model keeps
                "remat": "none",  # what training computes again to save memory: "blocks", "dots"
                "dtype": "bfloat16",  # of the computation; parameters and losses are float32
            },
            "objective": {
                # each trial's costs are divided by its "frames" or "labels"; or "none", "seed_rule"
                "normalize_by": "frames",
                "weights": {
                    "phoneme": 1.0,  # CTC on phonemes
                    "interctc": 0.3,  # CTC half way up; needs model.interctc
                    "label_smoothing": 0.0,  # divergence of the phoneme head from uniform
                    "consistency": 0.0,  # CR-CTC between two views, at twice the work; it uses 0.2
                },
            },
            "optimizer": {
                "peak_lr": 4e-4,  # learning rate after the warm-up
                "end_lr": 4e-6,  # learning rate of the last step, on a cosine
                "warmup_steps": 1_000,  # over which the learning rate grows linearly
                "clip_norm": 1.0,  # greatest global norm of the gradient
                "weight_decay": 1e-3,  # of AdamW; not of biases, norms and offsets
                "b1": 0.9,  # decay of AdamW's first moment
                "b2": 0.999,  # decay of AdamW's second moment
                "eps": 1e-6,  # added to the root of AdamW's second moment
                "session_rate": 1.0,  # factor of the learning rate of the session layers
                "decay_sessions": True,  # whether weight decay includes the session layers
            },
            "training": {
                "steps": 15_000,  # updates of the whole run
                "select_by": "per",  # the best model is the lowest in it; "wer" needs data.lexicon
                **common.training(),
            },
            "guard": common.guard(),
        }
    )


def small(config: ConfigDict) -> None:
    """Two CPU cores, fast speech."""
    config.update(common.small())
    config.update(
        {
            "data": {"buckets": 3},
            "model": {
                "d": 128,
                "layers": 3,
                "heads": 2,
                "ff": 256,
                "kernel": 15,
                "stride": 2,
                "patch": 8,
                "dropout": 0.1,
                "stochastic_depth": 0.0,
                "smoothing": 0.0,
                "head_scale": 0.1,
                "dtype": "float32",
            },
            "optimizer": {
                "peak_lr": 1e-3,  # with 3e-3 and five layers nothing was learned on digits
                "end_lr": 1e-5,
                "warmup_steps": 100,
                "clip_norm": 0.5,
                "eps": 1e-8,
            },
            "training": {"steps": 600},
        }
    )


def demo(config: ConfigDict) -> None:
    """Two CPU cores, simulated data of 512 channels at the speed of T15."""
    small(config)
    config.update(
        {
            "data": {"root": "runs/simulated", "buckets": 2},
            "model": {"stride": 4, "patch": 12, "smoothing": 1.0, "head_scale": 1.0},
            "training": {"steps": 320, "eval_every": 80, "save_every": 160},
        }
    )
