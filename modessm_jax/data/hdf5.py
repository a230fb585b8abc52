"""Reads and writes one file of the T15 layout (Brain-to-Text '25).

A file holds groups `trial_0000`, `trial_0001`, ... in the order of recording. Each has the dataset
`input_features` [frames, channels], and attributes `n_time_steps`, `block_num`, `trial_num` and
`session`; where labels are public also `seq_class_ids` (zero-padded phoneme ids) and the attributes
`seq_len` and `sentence_label`. Real lengths are those of the attributes: arrays may be padded.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from jaxtyping import Float, Int32

from modessm_jax.data.validation import MIN_BINS, data_error
from modessm_jax.phonemes import BLANK, CLASSES

_RESTORE = "Restore the file from the published data set"
_REWRITE = "Correct what wrote the file, or restore it from the published data set"


@dataclass(frozen=True, eq=False)
class Trial:
    """One attempted sentence. `labels` are phoneme ids 1..40; None where they are withheld."""

    session: str
    block: int
    number: int
    file: Path
    group: str
    bins: int
    labels: Int32[np.ndarray, "labels"] | None
    sentence: str | None
    corpus: str | None

    @property
    def name(self) -> str:
        return f"{self.session}/block {self.block}/trial {self.number}"


def open_file(file: Path) -> h5py.File:
    """Opens for reading.

    Raises:
        DataError: the file is missing, truncated or not HDF5.
    """
    try:
        # Without locks: disks shared over a network often refuse them, and nobody writes here.
        return h5py.File(file, "r", locking=False)
    except OSError as error:
        problem = f"cannot be opened as HDF5, it may be truncated ({error})"
        raise data_error(file, "", "", problem, _RESTORE) from error


def read_trials(
    file: Path, session: str, *, labels: bool, corpora: dict[int, str]
) -> Iterator[tuple[Trial, Float[np.ndarray, "bins channels"]]]:
    """Every trial of a file with its features as stored, in the file's order.

    Args:
        file: `data_train.hdf5`, `data_val.hdf5` or `data_test.hdf5`.
        session: name of the folder; the attribute `session` must agree.
        labels: whether every trial must have labels.
        corpora: name of the corpus by block.

    Raises:
        DataError: the file is unreadable or contradicts the layout.
    """
    with open_file(file) as handle:
        for name in list(handle):
            trial = _Reader(file, handle, name).trial(session, labels, corpora)
            yield trial, read_features(handle, trial)


def read_features(handle: h5py.File, trial: Trial) -> Float[np.ndarray, "bins channels"]:
    """The real frames of a trial, as stored.

    Raises:
        DataError: the values cannot be read.
    """
    try:
        stored = handle[f"{trial.group}/input_features"]
        assert isinstance(stored, h5py.Dataset)
        return stored[: trial.bins]
    except (OSError, KeyError, RuntimeError) as error:
        problem = f"the values cannot be read ({error})"
        raise data_error(trial.file, trial.group, "input_features", problem, _RESTORE) from error


def write_trial(
    handle: h5py.File,
    session: str,
    block: int,
    number: int,
    features: Float[np.ndarray, "bins channels"],
    labels: Int32[np.ndarray, "labels"] | None,
    sentence: str | None,
) -> None:
    """Appends a trial to an open file; ids and sentence are left out where they are None."""
    group = handle.create_group(f"trial_{len(handle):04d}")
    group.create_dataset("input_features", data=features.astype(np.float32), compression="gzip")
    group.attrs["n_time_steps"] = len(features)
    group.attrs["session"] = session
    group.attrs["block_num"] = block
    group.attrs["trial_num"] = number
    if labels is not None:
        group["seq_class_ids"] = _padded(labels)
        group.attrs["seq_len"] = len(labels)
    if sentence is not None:
        group["transcription"] = _padded(np.array([ord(letter) for letter in sentence]))
        group.attrs["sentence_label"] = sentence


def _padded(ids: np.ndarray) -> np.ndarray:
    """At least the 500 places that T15's files have, zeros at the end."""
    return np.pad(ids.astype(np.int32), (0, max(0, 500 - len(ids))))


class _Reader:
    """Reads and checks the fields of one trial's group."""

    def __init__(self, file: Path, handle: h5py.File, name: str):
        self.file = file
        self.name = name
        try:
            group = handle[name]
        except (OSError, KeyError, RuntimeError) as error:
            raise self.error("", f"the group cannot be read ({error})", _RESTORE) from error
        if not isinstance(group, h5py.Group):
            raise self.error("", "is not a group", "A file of this layout holds one group a trial")
        self.group = group
        self.attributes = group.attrs

    def error(self, field: str, problem: str, remedy: str):
        return data_error(self.file, self.name, field, problem, remedy)

    def trial(self, session: str, labels: bool, corpora: dict[int, str]) -> Trial:
        stored = self.stored_bins()
        bins = self.integer("n_time_steps")
        if not 0 <= bins <= stored:
            raise self.error(
                "n_time_steps", f"is {bins}, but input_features holds {stored} frames", _REWRITE
            )
        named = self.text("session")
        if named is not None and named != session:
            raise self.error(
                "session",
                f"is {named!r}, but the folder is {session!r}",
                "Move the file to the folder of its session",
            )
        block, number = self.integer("block_num"), self.integer("trial_num")
        ids = None
        if labels or "seq_class_ids" in self.group or "seq_len" in self.attributes:
            ids = self.labels(bins)
        sentence = self.text("sentence_label")
        corpus = corpora.get(block)
        return Trial(session, block, number, self.file, self.name, bins, ids, sentence, corpus)

    def stored_bins(self) -> int:
        features = self.dataset("input_features", 2, np.floating)
        if not features.shape[1]:
            raise self.error("input_features", "has no channels", _REWRITE)
        return len(features)

    def labels(self, bins: int) -> Int32[np.ndarray, "labels"]:
        stored = self.dataset("seq_class_ids", 1, np.integer)
        count = self.integer("seq_len")
        if not 0 <= count <= len(stored):
            raise self.error(
                "seq_len", f"is {count}, but seq_class_ids holds {len(stored)} ids", _REWRITE
            )
        # Shorter trials are left out of training, so their labels need not fit.
        if count > bins >= MIN_BINS:
            raise self.error(
                "seq_len", f"is {count}, more labels than n_time_steps = {bins} frames", _REWRITE
            )
        try:
            ids = stored[:count]
        except (OSError, RuntimeError) as error:
            problem = f"the values cannot be read ({error})"
            raise self.error("seq_class_ids", problem, _RESTORE) from error
        wrong = np.flatnonzero((ids <= BLANK) | (ids >= CLASSES))
        if wrong.size:
            raise self.error(
                "seq_class_ids",
                f"holds {ids[wrong[0]]} at position {wrong[0]} of {count}",
                f"Labels within seq_len are phoneme ids 1 to {CLASSES - 1}; {BLANK} is padding",
            )
        return ids.astype(np.int32)

    def dataset(self, field: str, rank: int, kind: type[np.generic]) -> h5py.Dataset:
        if field not in self.group:
            raise self.error(field, "the dataset is missing", _RESTORE)
        stored = self.group[field]
        if not isinstance(stored, h5py.Dataset):
            raise self.error(field, "is a group where a dataset belongs", _REWRITE)
        if stored.ndim != rank:
            raise self.error(
                field, f"has {stored.ndim} axes (shape {stored.shape}), not {rank}", _REWRITE
            )
        if not np.issubdtype(stored.dtype, kind):
            wanted = "floating point" if kind is np.floating else "integer"
            raise self.error(field, f"is of type {stored.dtype}, not {wanted}", _REWRITE)
        return stored

    def attribute(self, field: str) -> Any:
        try:
            return self.attributes[field]
        except (OSError, RuntimeError) as error:
            problem = f"the attribute cannot be read ({error})"
            raise self.error(field, problem, _RESTORE) from error

    def integer(self, field: str) -> int:
        if field not in self.attributes:
            raise self.error(field, "the attribute is missing", _RESTORE)
        value = np.asarray(self.attribute(field))
        whole = value.size == 1 and value.dtype.kind in "iuf" and float(value.item()).is_integer()
        if not whole:
            raise self.error(field, f"is {value.tolist()!r}, not one whole number", _REWRITE)
        return int(value.item())

    def text(self, field: str) -> str | None:
        if field not in self.attributes:
            return None
        value = self.attribute(field)
        if isinstance(value, bytes):
            value = value.decode("utf-8", errors="replace")
        if not isinstance(value, str):
            raise self.error(field, f"is {value!r}, not text", _REWRITE)
        return value
