"""The multi-scale Conformer CTC decoder.

python -m experiments.train --config=configs/multiscale.py --config.data.root=DATA --workdir=RUN

Variants, after a colon:

(none)   The recipe for T15, 263 million parameters: the sizes of the system this project started
         from, with its optimiser repaired. Meant for large GPUs or TPUs. Not trained yet, so there
         is no result.
small    A size for two CPU cores and fast speech (strides of 20, 40 and 80 ms). Spoken digits:
         0.58 % val PER (three seeds: 0.44 % to 0.79 %), 9 to 10 minutes on one core.
demo     A size for two CPU cores and simulated T15-shaped data, as `make demo` runs it:
         9.91 % val PER in 6.4 minutes on two cores.
stream80 A recipe that streams: it needs no bin later than 80 ms after a frame. Also stream0 and
         stream160, and all three of a smaller size: small+stream80, demo+stream0, and so on.
         docs/streaming.md has what they wait for. Not trained yet.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(variant: str = "") -> ConfigDict:
    """The recipe named by `variant`: "", "small", "demo", "stream80", "small+stream80", ..."""
    return common.varied(full(), variant, stream, small=small, demo=demo)


def full() -> ConfigDict:
    """Full size, for T15."""
    return ConfigDict(
        {
            "data": common.data(),
            "init": common.init(),
            "augment": common.augment(),
            "model": {
                "name": "multiscale",  # the model; choose the other by its own config file
                "d": 1024,  # width of the Conformer blocks
                "layers": (3, 6, 3),  # Conformer blocks of the fast, medium and slow pathway
                "heads": 8,  # of the attention
                "ff": 2048,  # width of the feed-forward layers
                "kernel": 31,  # of the depthwise convolutions, in frames
                "strides": (2, 4, 8),  # bins per frame of each pathway
                "patches": (32, 32, 32),  # kernels of the strided convolutions, in bins
                "dropout": 0.3,  # probability that a feature is dropped for a whole trial
                "stochastic_depth": 0.1,  # of skipping the last block; less for earlier ones
                "session": "affine",  # adaptation to the session: "affine", "layernorm" or "none"
                "fusion_norm": True,  # whether LayerNorm follows the fusion of the pathways
                "smoothing": 2.0,  # deviation of the Gaussian filter, in bins; 0: none
                "interctc": True,  # whether there is a second CTC head, half way up
                "head_scale": 1.0,  # factor of the initial weights of the CTC head
                "diphones": False,  # predict pairs of phonemes and sum them to phonemes
                "causal": False,  # whether the model can stream: no attention to later chunks
                "chunk": 16,  # bins that a causal model takes at a time
                "left": 480,  # past bins that the attention of a causal model keeps
                "remat": "blocks",  # what training computes again to save memory: "blocks", "dots"
                "dtype": "bfloat16",  # of the computation; parameters and losses are float32
            },
            "objective": {
                # each trial's costs are divided by its "frames" or "labels"; or "none", "seed_rule"
                "normalize_by": "frames",
                "weights": {
                    "phoneme": 1.0,  # CTC on phonemes
                    "interctc": 0.3,  # CTC half way up; needs model.interctc
                    "diphone": 0.0,  # CTC on pairs of phonemes; needs model.diphones
                    "label_smoothing": 0.0,  # divergence of the phoneme head from uniform
                    "consistency": 0.0,  # CR-CTC between two views, at twice the work; it uses 0.2
                },
            },
            "optimizer": {
                "peak_lr": 5e-4,  # learning rate after the warm-up
                "end_lr": 5e-5,  # learning rate of the last step, on a cosine
                "warmup_steps": 10_000,  # over which the learning rate grows linearly
                "clip_norm": 0.5,  # greatest global norm of the gradient
                "weight_decay": 1e-3,  # of AdamW; not of biases, norms and offsets
                "b1": 0.9,  # decay of AdamW's first moment
                "b2": 0.999,  # decay of AdamW's second moment
                "eps": 1e-8,  # added to the root of AdamW's second moment
                "session_rate": 1.0,  # factor of the learning rate of the session layers
                "decay_sessions": True,  # whether weight decay includes the session layers
            },
            "training": {
                "steps": 150_000,  # updates of the whole run
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
                "remat": "none",
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


def stream(config: ConfigDict, lookahead: int) -> None:
    """A look-ahead of so many bins: those of a chunk after its first frame.

    A slow frame is known only when it is over, and so none may be longer than a middle one.
    """
    fast, middle, _ = config.to_dict()["model"]["strides"]
    strides, chunk = (fast, middle, middle), middle + lookahead
    config.update({"model": {"causal": True, "strides": strides, "chunk": chunk}})
