"""What the recipes share: how recordings are read and augmented, at full size and on two cores.

Every key has its meaning beside it; `docs/configs.md` is made of these comments.
"""

import itertools
from collections.abc import Callable
from typing import Any

from ml_collections import ConfigDict

# Variants that stream, and the bins that they look ahead; each can follow a size: "small+stream80".
LOOKAHEADS = {"stream0": 0, "stream80": 4, "stream160": 8}
FOLLOWED = ("", "small", "demo")  # the sizes


def varied(
    config: ConfigDict,
    variant: str,
    stream: Callable[[ConfigDict, int], None] | None = None,
    **variants: Callable[[ConfigDict], None],
) -> ConfigDict:
    """The config as the variant of that name changes it; "" leaves it as it is.

    `stream` makes those of `LOOKAHEADS`.
    """
    known = {name: (name, "") for name in ("", *variants)}
    if stream is not None:
        pairs = itertools.product(FOLLOWED, LOOKAHEADS)
        known |= {f"{size}+{name}".lstrip("+"): (size, name) for size, name in pairs}
    if variant not in known:
        choice = " or ".join(filter(None, known))
        raise ValueError(f"no variant {variant!r} of this config: choose {choice}")
    size, lookahead = known[variant]
    if size:
        variants[size](config)
    if lookahead and stream is not None:
        stream(config, LOOKAHEADS[lookahead])
    return config


def data() -> dict[str, Any]:
    """For T15."""
    return {
        "root": "",  # folder of the recordings, which holds one folder for each session
        "sessions": (),  # names of the sessions to use; empty: all
        # adapter of sessions without training trials: of the "nearest", the "mean", or "refuse"
        "untrained_sessions": "refuse",
        "exclude": (),  # SESSION/BLOCK/TRIAL or SESSION/BLOCK to leave out, or .txt files of them
        "channels": "",  # channels to use, from 0 on, such as "0-63,128-255"; empty: all
        "normalize": "as_stored",  # "as_stored", or "running": z-scores by each channel's past
        "normalize_window": 60.0,  # seconds after which the past has lost 63 % of its weight
        "normalize_log": "",  # channels whose log(1 + x) is taken before, as in channels; or none
        "table": "",  # CSV with the corpus of each block, for figures by corpus; empty: none
        "lexicon": "",  # word error rates are measured while training with it; empty: none
        "batch_size": 64,  # trials of one update, over all devices
        "buckets": 8,  # number of padded lengths; each is compiled once
        "sessions_per_batch": 0,  # sessions drawn for each batch; 0: shuffle all trials
        "workers": 0,  # processes that load the data; 0: threads
        "memory_gib": 32.0,  # a split that takes more memory is read from disk when needed
    }


def init() -> dict[str, Any]:
    """What the parameters begin as."""
    return {
        "run": "",  # workdir whose best model to begin with, or exported .npz; empty: random
        "skip": (),  # parameters that begin at random all the same, such as ("head/*",)
        "sessions": "nearest",  # adapter a new session begins with: "nearest", "mean", "identity"
    }


def augment() -> dict[str, Any]:
    """For T15. Features are z-scored, so sizes are in standard deviations; times are in bins."""
    return {
        "white_noise": 0.8,  # deviation of noise, drawn for each bin and channel
        "constant_offset": 0.2,  # deviation of an offset, drawn for each trial and channel
        "random_walk": 0.0,  # deviation of the steps of a random walk, for each trial and channel
        "static_gain": 0.0,  # deviation from 1 of a gain, drawn for each trial and channel
        "random_cut": 2,  # most bins cut from a trial's start
        "time_warp": 0.0,  # most that a point of the trial moves, as a share of it; below 0.25
        "time_masks": 20,  # spans of each trial that are hidden from the model
        "time_mask_fraction": 0.075,  # longest span, as a share of the trial
        "channel_dropout": 0.0,  # probability that a channel is zero for a whole trial
        "speckle": 0.0,  # probability that one bin of one channel is zero; the rest is scaled up
    }


def training() -> dict[str, Any]:
    """For days on an accelerator."""
    return {
        "accumulate": 1,  # parts in which a batch is computed, to save memory
        "ema_decay": 0.999,  # of the average of parameters that is evaluated; 0: no average
        "seed": 0,  # of everything random
        "log_every": 50,  # steps from one log line to the next
        "eval_every": 1_000,  # steps from one evaluation on val to the next
        "save_every": 1_000,  # steps from one checkpoint to the next
        "keep": 3,  # latest checkpoints that stay on disk
    }


def guard() -> dict[str, Any]:
    """When a run goes back to a checkpoint, and how it goes on from there."""
    return {
        "nonfinite_budget": 10,  # non-finite steps skipped in a row; one more and the run goes back
        "tries": 3,  # times a run may go back for one cause before it stops
        "divergence": False,  # whether a sustained rise of the loss sends the run back
        "window": 64,  # steps over which the level of the loss is measured
        "rise": 1.5,  # ratio of losses below which nothing counts as a rise
        "lr_factor": 0.5,  # the learning rate is multiplied by this after each divergence
    }


def small() -> dict[str, Any]:
    """Changes for minutes on two CPU cores, and fast speech."""
    return {
        "data": {"batch_size": 16, "memory_gib": 4.0},
        "augment": {"white_noise": 0.2, "constant_offset": 0.1, "time_masks": 4},
        "training": {"ema_decay": 0.99, "log_every": 20, "eval_every": 200, "save_every": 200},
    }
