"""Writes small data sets in the T15 layout, and spoils them one field at a time."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np

CHANNELS = 20


def write_trial(
    file: Path,
    number: int,
    *,
    bins: int = 12,
    labels: list[int] | None = None,
    channels: int = CHANNELS,
    features: np.ndarray | None = None,
    block: int = 1,
) -> None:
    """Appends a trial, stored with three frames and many ids of padding."""
    if features is None:
        random = np.random.default_rng(number)
        features = random.normal(size=(bins, channels)).astype(np.float32)
    padded = np.full((bins + 3, features.shape[1]), 7e7, np.float32)
    padded[:bins] = features
    with h5py.File(file, "a") as handle:
        group = handle.create_group(f"trial_{number:04d}")
        group["input_features"] = padded
        group.attrs["n_time_steps"] = bins
        group.attrs["session"] = file.parent.name
        group.attrs["block_num"] = block
        group.attrs["trial_num"] = number
        if labels is not None:
            group["seq_class_ids"] = np.array(labels + [0] * (30 - len(labels)), np.int32)
            group.attrs["seq_len"] = len(labels)
            group.attrs["sentence_label"] = f"sentence {number}"


def write_split(root: Path, session: str, split: str, lengths: list[int], **fields: Any) -> Path:
    """A file with one trial of each length; labelled unless it is the test split."""
    folder = root / session
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"data_{split}.hdf5"
    for number, bins in enumerate(lengths):
        labels = None if split == "test" else [1 + number % 39, 40][:bins]
        write_trial(file, number, bins=bins, labels=labels, **fields)
    return file
