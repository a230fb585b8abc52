"""What the recipes share: how recordings are read and augmented, at full size and on two cores."""

from typing import Any


def data() -> dict[str, Any]:
    """For T15."""
    return {
        "root": "",  # folder of <session>/data_{train,val,test}.hdf5
        "sessions": (),  # some of its sessions; empty: all
        "table": "",  # block table of the corpora, if there is one
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
        "time_masks": 20,
        "time_mask_fraction": 0.075,
        "channel_dropout": 0.0,
        "speckle": 0.0,
    }


def training(select_by: str) -> dict[str, Any]:
    """For days on an accelerator."""
    return {
        "accumulate": 1,
        "ema_decay": 0.999,
        "seed": 0,
        "log_every": 50,
        "eval_every": 1_000,
        "save_every": 1_000,
        "keep": 3,
        "select_by": select_by,
    }


def small() -> dict[str, Any]:
    """Changes for minutes on two CPU cores, and fast speech."""
    return {
        "data": {"batch_size": 16, "memory_gib": 4.0},
        "augment": {"white_noise": 0.2, "constant_offset": 0.1, "time_masks": 4},
        "training": {"ema_decay": 0.99, "log_every": 20, "eval_every": 200, "save_every": 200},
    }
