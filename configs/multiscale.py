"""The multi-scale Conformer CTC decoder.

python -m experiments.train --config=configs/multiscale.py --config.data.root=DATA --workdir=RUN

Variants, after a colon:

(none)   The recipe for T15: the founding system's sizes with its mended optimiser, 263 million
         parameters. Meant for large GPUs or TPUs; not trained here, so no result is claimed.
small    A size for two CPU cores and fast speech (strides of 20, 40 and 80 ms). Spoken digits:
         0.58 % val PER (three seeds: 0.44 % to 0.79 %), 9 to 10 minutes on one core.
demo     A size for two CPU cores and simulated T15-shaped data, as `make demo` runs it:
         9.95 % val PER in 6.4 minutes on two cores.
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
            "augment": common.augment(),
            "model": {
                "name": "multiscale",
                "d": 1024,
                "layers": (3, 6, 3),  # Conformer blocks of the fast, medium and slow pathway
                "heads": 8,
                "ff": 2048,
                "kernel": 31,  # depthwise, in frames
                "strides": (2, 4, 8),  # bins per frame
                "patches": (32, 32, 32),  # kernels of the strided convolutions, in bins
                "dropout": 0.3,
                "stochastic_depth": 0.1,
                "session": "affine",  # or "layernorm", "none"
                "fusion_norm": True,  # LayerNorm after the fusion of the scales
                "smoothing": 2.0,  # sigma in bins; 0: none
                "interctc": True,
                "head_scale": 1.0,  # of the CTC heads' first weights
                "diphones": False,  # say which phoneme follows which (objective: diphone)
                "causal": False,
                "chunk": 16,  # bins a causal decoder waits for
                "left": 480,  # bins of past its attention keeps
                "dtype": "bfloat16",  # of the compute; parameters and losses are float32
            },
            "objective": {
                "normalize_by": "frames",
                "weights": {
                    "phoneme": 1.0,
                    "interctc": 0.3,
                    "diphone": 0.0,
                    "label_smoothing": 0.0,
                    "consistency": 0.0,  # CR-CTC uses 0.2; twice the work a step
                },
            },
            "optimizer": {
                "peak_lr": 5e-4,
                "end_lr": 5e-5,
                "warmup_steps": 10_000,
                "clip_norm": 0.5,
                "weight_decay": 1e-3,
                "b1": 0.9,
                "b2": 0.999,
                "eps": 1e-8,
            },
            # The best model is the lowest in "per", or with data.lexicon in "wer".
            "training": {"steps": 150_000, "select_by": "per", **common.training()},
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
                "d": 96,
                "layers": (1, 2, 1),
                "heads": 2,
                "ff": 192,
                "kernel": 15,
                "strides": (1, 2, 4),
                "patches": (5, 8, 12),
                "dropout": 0.1,
                "stochastic_depth": 0.0,
                "smoothing": 0.0,
                "head_scale": 0.1,
                "dtype": "float32",
            },
            "optimizer": {"peak_lr": 3e-3, "end_lr": 3e-5, "warmup_steps": 100},
            "training": {"steps": 600},
        }
    )


def demo(config: ConfigDict) -> None:
    """Two CPU cores, simulated data of 512 channels at the speed of T15."""
    small(config)
    config.update(
        {
            "data": {"root": "runs/simulated", "buckets": 2},
            "model": {
                "strides": (2, 4, 8),
                "patches": (8, 12, 16),
                "smoothing": 1.0,
                "head_scale": 1.0,
            },
            "training": {"steps": 320, "eval_every": 80, "save_every": 160},
        }
    )
