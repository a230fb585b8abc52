"""What the recipes share: how recordings are read and augmented, at full size and on two cores."""

from collections.abc import Callable
from typing import Any

from ml_collections import ConfigDict


def varied(
    config: ConfigDict, variant: str, **variants: Callable[[ConfigDict], None]
) -> ConfigDict:
    """The config as the variant of that name changes it; "" leaves it as it is."""
    if variant and variant not in variants:
        raise ValueError(f"no variant {variant!r} of this config: choose {' or '.join(variants)}")
    if variant:
        variants[variant](config)
    return config


def data() -> dict[str, Any]:
    """For T15."""
    return {
        "root": "",  # folder of <session>/data_{train,val,test}.hdf5
        "sessions": (),  # some of its sessions; empty: all
        "table": "",  # block table of the corpora, if there is one
        "lexicon": "",  # to measure word error rates while training, if there is one
        "batch_size": 64,
        "buckets": 8,  # padded lengths, each compiled once
        "sessions_per_batch": 0,  # the baseline draws 4; 0: shuffle everything
        "workers": 0,  # loader processes; 0: threads
        "memory_gib": 32.0,  # larger splits are read lazily
    }


def augment() -> dict[str, Any]:
    """For T15."""
    return {
        "white_noise": 0.8,
        "constant_offset": 0.2,
        "random_walk": 0.0,
        "static_gain": 0.0,
        "random_cut": 2,
        "time_warp": 0.0,
        "time_masks": 20,
        "time_mask_fraction": 0.075,
        "channel_dropout": 0.0,
        "speckle": 0.0,
    }


def training() -> dict[str, Any]:
    """For days on an accelerator."""
    return {
        "accumulate": 1,
        "ema_decay": 0.999,
        "seed": 0,
        "log_every": 50,
        "eval_every": 1_000,
        "save_every": 1_000,
        "keep": 3,
    }


def guard() -> dict[str, Any]:
    """When a run goes back to a checkpoint, and how it goes on from there."""
    return {
        "nonfinite_budget": 10,  # steps skipped in a row; one more and the run goes back
        "tries": 3,  # times a run may go back for one cause before it stops
        "divergence": False,  # whether a sustained rise of the loss sends a run back
        "window": 64,  # steps over which the level of the loss is measured
        "rise": 1.5,  # ratio of losses below which nothing counts as a rise
        "lr_factor": 0.5,  # what the learning rate is multiplied by after each divergence
    }


def small() -> dict[str, Any]:
    """Changes for minutes on two CPU cores, and fast speech."""
    return {
        "data": {"batch_size": 16, "memory_gib": 4.0},
        "augment": {"white_noise": 0.2, "constant_offset": 0.1, "time_masks": 4},
        "training": {"ema_decay": 0.99, "log_every": 20, "eval_every": 200, "save_every": 200},
    }
