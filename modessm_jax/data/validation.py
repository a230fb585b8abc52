"""The error for unusable data, and the rules for bad trials.

A file that contradicts itself (labels longer than the frames, a channel count that changes), or is
incomplete, raises `DataError`: a guess might be wrong without anybody noticing. Bad recordings
(dead electrodes, artefacts of NaN) are normal in this field and are handled by fixed rules:

- a training trial with more than 10 % bad channels, under 50 ms or over 60 s, is left out of
  training, counted and named; validation and test trials are never left out;
- in every trial that is kept, non-finite values become 0, the mean of z-scored features; the trial
  is counted and named.

A channel is bad in a trial if it is dead (one constant value over the whole trial) or holds a
non-finite value.
"""

from collections.abc import Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

import numpy as np
from absl import logging
from jaxtyping import Float, Float32

BIN_SECONDS = 0.02
MAX_BAD_CHANNELS = 0.10
MIN_BINS = 3  # 50 ms is two and a half bins
MAX_BINS = 3000  # 60 s
# Larger datasets are refused before memory is taken for them. A minute of 512 channels is 6 MB.
MAX_BYTES = 2**30


EXCLUDE = "data.exclude"  # the field of the finding on a trial that was left out by name


class DataError(ValueError):
    """Data that cannot be used; the message names the file, trial and field and what to do."""


def data_error(file: Path, trial: str, field: str, problem: str, remedy: str) -> DataError:
    """A `DataError` reading "file, trial, field: problem. remedy."; empty parts are left out."""
    parts = ", ".join(part for part in (str(file), trial, field) if part)
    return DataError(f"{parts}: {problem}. {remedy}.")


@dataclass(frozen=True)
class Finding:
    """Why a trial was left out of training, or its values were repaired."""

    trial: str
    field: str
    reason: str


def bad_channels(features: Float[np.ndarray, "bins channels"]) -> tuple[int, int]:
    """How many channels of a trial are dead, and how many hold non-finite values.

    A channel that is both counts as non-finite. A trial of fewer than two bins has no dead
    channels: nothing could have varied.
    """
    if not len(features):
        return 0, 0
    with np.errstate(invalid="ignore"):
        low, high = features.min(axis=0), features.max(axis=0)  # NaN where a value is NaN
    finite = np.isfinite(low) & np.isfinite(high)
    constant = (low == high) & (len(features) > 1)
    return int((finite & constant).sum()), int((~finite).sum())


def repair(features: Float32[np.ndarray, "bins channels"]) -> Float32[np.ndarray, "bins channels"]:
    """The features with every non-finite value replaced by 0."""
    return np.nan_to_num(features, nan=0.0, posinf=0.0, neginf=0.0)


def length_reason(bins: int) -> str | None:
    """Why a trial of this length is unfit for training; None if it is fit."""
    if bins < MIN_BINS:
        return f"{bins} bins, under 50 ms"
    if bins > MAX_BINS:
        return f"{bins} bins, over 60 s"
    return None


def report(split: str, kept: int, excluded: Sequence[Finding], repaired: Sequence[Finding]) -> None:
    """Logs what was left out of a split and what was repaired; by name, but for `data.exclude`."""
    chosen = [one.trial for one in excluded if one.field == EXCLUDE]
    if chosen:
        message = "Left out of %s by data.exclude: %d trials, such as %s"
        logging.warning(message, split, len(chosen), chosen[0])
    for one in excluded:
        if one.field != EXCLUDE:
            logging.warning("Left out of %s: %s, %s: %s", split, *astuple(one))
    for one in repaired:
        logging.warning("Non-finite values read as 0: %s, %s", one.trial, one.reason)
    counts = kept, len(excluded), len(repaired)
    logging.info("Split %s: %d trials, %d left out, %d repaired", split, *counts)
