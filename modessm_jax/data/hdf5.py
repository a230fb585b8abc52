"""Reads and writes one file of the T15 layout (Brain-to-Text '25).

A file holds groups `trial_0000`, `trial_0001`, ... in the order of recording. Each has the dataset
`input_features` [frames, channels], and attributes `n_time_steps`, `block_num`, `trial_num` and
`session`; where labels are public also `seq_class_ids` (zero-padded phoneme ids) and the attributes
`seq_len` and `sentence_label`. Real lengths are those of the attributes: arrays may be padded.
"""

import math
import re
import reprlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from jaxtyping import Float, Float32, Int32

from modessm_jax.data.validation import MAX_BYTES, MIN_BINS, data_error, to_float32
from modessm_jax.phonemes import BLANK, CLASSES

_RESTORE = "Restore the file from the published data set"
_REWRITE = "Correct what wrote the file, or restore it from the published data set"

_TRIAL = re.compile(r"trial_([0-9]{1,9})")

# What h5py raises where a file is damaged, or holds what NumPy has no type for.
_UNREADABLE = (OSError, KeyError, RuntimeError, TypeError, ValueError)


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
        """Session, block and number, for people to read."""
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
) -> Iterator[tuple[Trial, Float32[np.ndarray, "bins channels"]]]:
    """Every trial of a file with its features, not yet repaired, in the order of recording.

    Args:
        file: `data_train.hdf5`, `data_val.hdf5` or `data_test.hdf5`.
        session: name of the folder; the attribute `session` must agree.
        labels: whether every trial must have labels.
        corpora: name of the corpus by block.

    Raises:
        DataError: the file is unreadable or contradicts the layout.
    """
    with open_file(file) as handle:
        seen: dict[tuple[int, int], str] = {}
        for name in _trial_names(file, handle):
            reader = _Reader(file, handle, name)
            trial = reader.trial(session, labels, corpora)
            reader.check_new(seen, trial.block, trial.number)
            yield trial, reader.features(trial.bins)


def read_numbers(file: Path, session: str) -> list[tuple[int, int, str | None]]:
    """Block number, trial number and sentence, None if withheld, of every trial of a file.

    They are in the order of recording; nothing else is read.

    Raises:
        DataError: the file is unreadable or contradicts the layout.
    """
    with open_file(file) as handle:
        seen: dict[tuple[int, int], str] = {}
        found = []
        for name in _trial_names(file, handle):
            reader = _Reader(file, handle, name)
            block, number = reader.numbers(session)
            reader.check_new(seen, block, number)
            found.append((block, number, reader.text("sentence_label")))
    return found


def read_features(handle: h5py.File, trial: Trial) -> Float32[np.ndarray, "bins channels"]:
    """The real frames of a trial, not yet repaired.

    Raises:
        DataError: the values cannot be read, or the file no longer fits the trial.
    """
    return _Reader(trial.file, handle, trial.group).features(trial.bins)


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


def _trial_names(file: Path, handle: h5py.File) -> list[str]:
    """The names of the groups, by number: in the alphabet, trial_10000 comes before trial_9999."""
    try:
        # h5py gives names that are not UTF-8 as bytes.
        names = [
            n.decode(errors="backslashreplace") if isinstance(n, bytes) else str(n) for n in handle
        ]
    except _UNREADABLE as error:
        problem = f"the list of trials cannot be read ({error})"
        raise data_error(file, "", "", problem, _RESTORE) from error
    if not names:
        remedy = "Restore it, or remove it if the session has no trials in this split"
        raise data_error(file, "", "", "holds no trials", remedy)
    numbers: dict[str, int] = {}
    for name in names:
        match = _TRIAL.fullmatch(name)
        if match is None:
            problem = "is not the name of a trial"
            remedy = "Name all groups trial_0000, trial_0001, ... in the order of recording"
            raise data_error(file, name, "", problem, remedy)
        numbers[name] = int(match[1])
    return sorted(names, key=numbers.__getitem__)


class _Reader:
    """Reads and checks the fields of one trial's group."""

    def __init__(self, file: Path, handle: h5py.File, name: str):
        self.file = file
        self.name = name
        with self.reading("", "the group"):
            group = handle[name]
        if not isinstance(group, h5py.Group):
            raise self.error("", "is not a group", "A file of this layout holds one group a trial")
        self.group = group
        self.attributes = group.attrs

    def error(self, field: str, problem: str, remedy: str):
        return data_error(self.file, self.name, field, problem, remedy)

    @contextmanager
    def reading(self, field: str, what: str) -> Iterator[None]:
        try:
            yield
        except _UNREADABLE as error:
            raise self.error(field, f"{what} cannot be read ({error})", _RESTORE) from error

    def trial(self, session: str, labels: bool, corpora: dict[int, str]) -> Trial:
        bins = self.integer("n_time_steps")
        block, number = self.numbers(session)
        ids = None
        with self.reading("", "the group"):
            labelled = labels or "seq_class_ids" in self.group or "seq_len" in self.attributes
        if labelled:
            ids = self.labels(bins)
        sentence = self.text("sentence_label")
        corpus = corpora.get(block)
        return Trial(session, block, number, self.file, self.name, bins, ids, sentence, corpus)

    def numbers(self, session: str) -> tuple[int, int]:
        """The block and the trial's number in it."""
        named = self.text("session")
        if named is not None and named != session:
            raise self.error(
                "session",
                f"is {named!r}, but the folder is {session!r}",
                "Move the file to the folder of its session",
            )
        return self.number("block_num"), self.number("trial_num")

    def check_new(self, seen: dict[tuple[int, int], str], block: int, number: int) -> None:
        """No two trials of a file have the same numbers."""
        first = seen.setdefault((block, number), self.name)
        if first != self.name:
            problem = f"is {number} in block {block}, and so is that of {first}"
            raise self.error("trial_num", problem, "Leave one of the two, or number them apart")

    def features(self, bins: int) -> Float32[np.ndarray, "bins channels"]:
        stored = self.dataset("input_features", 2, np.floating)
        frames, channels = stored.shape
        if not channels:
            raise self.error("input_features", "has no channels", _REWRITE)
        if not 0 <= bins <= frames:
            raise self.error(
                "n_time_steps", f"is {bins}, but input_features holds {frames} frames", _REWRITE
            )
        self.check_written("input_features", stored, bins)
        return to_float32(self.values("input_features", stored, bins))

    def labels(self, bins: int) -> Int32[np.ndarray, "labels"]:
        stored = self.dataset("seq_class_ids", 1, np.integer)
        count = self.integer("seq_len")
        if not 0 < count <= stored.shape[0]:
            raise self.error(
                "seq_len", f"is {count}, but seq_class_ids holds {stored.shape[0]} ids", _REWRITE
            )
        # Shorter trials are left out of training, so their labels need not fit.
        if count > bins >= MIN_BINS:
            raise self.error(
                "seq_len", f"is {count}, more labels than n_time_steps = {bins} frames", _REWRITE
            )
        self.check_written("seq_class_ids", stored, count)
        values = self.values("seq_class_ids", stored, count + 1)
        ids, padding = values[:count], values[count:]
        wrong = np.flatnonzero((ids <= BLANK) | (ids >= CLASSES))
        if wrong.size:
            raise self.error(
                "seq_class_ids",
                f"holds {ids[wrong[0]]} at position {wrong[0]} of {count}",
                f"Labels within seq_len are phoneme ids 1 to {CLASSES - 1}; {BLANK} is padding",
            )
        if (padding != BLANK).any():
            raise self.error(
                "seq_len", f"is {count}, but seq_class_ids goes on with {padding[0]}", _REWRITE
            )
        return ids.astype(np.int32)

    def dataset(self, field: str, rank: int, kind: type[np.generic]) -> h5py.Dataset:
        """A dataset of which nothing has been read, and which is safe to read."""
        with self.reading(field, "the dataset"):
            stored = self.group.get(field)
        if stored is None:
            raise self.error(field, "the dataset is missing", _RESTORE)
        if not isinstance(stored, h5py.Dataset):
            found = type(stored).__name__.lower()
            raise self.error(field, f"is a {found} where a dataset belongs", _REWRITE)
        with self.reading(field, "the dataset"):
            dtype, shape, chunks = stored.dtype, stored.shape, stored.chunks
            elsewhere = stored.is_virtual or stored.external
        if shape is None or len(shape) != rank:
            axes = len(shape or ())
            raise self.error(field, f"has {axes} axes (shape {shape}), not {rank}", _REWRITE)
        if not np.issubdtype(dtype, kind):
            wanted = "floating point" if kind is np.floating else "integer"
            raise self.error(field, f"is of type {dtype}, not {wanted}", _REWRITE)
        # HDF5 reads a compressed chunk whole, even for one value of it.
        claimed = max(math.prod(shape), math.prod(chunks or ())) * dtype.itemsize
        if claimed > MAX_BYTES:
            raise self.error(
                field,
                f"claims {claimed / 2**30:.3g} GiB (shape {shape}, chunks {chunks}), more than "
                f"the {MAX_BYTES / 2**30:g} GiB a trial may have",
                _REWRITE,
            )
        # Where another file is missing, HDF5 gives made-up values without an error.
        if elsewhere:
            raise self.error(field, "has its values in other files", "Copy them into this file")
        return stored

    def check_written(self, field: str, stored: h5py.Dataset, rows: int):
        """HDF5 makes up the values that were never written, without an error."""
        with self.reading(field, "the values"):
            complete = _written(stored, rows)
        if not complete:
            raise self.error(field, f"not all of the first {rows} were ever written", _RESTORE)

    def values(self, field: str, stored: h5py.Dataset, rows: int) -> np.ndarray:
        with self.reading(field, "the values"):
            return stored[:rows]

    def attribute(self, field: str) -> Any:
        """The value; None if there is no such attribute."""
        with self.reading(field, "the attribute"):
            # Not `get`, which would take a damaged attribute for a missing one.
            present = field in self.attributes
            return self.attributes[field] if present else None

    def integer(self, field: str) -> int:
        stored = self.attribute(field)
        if stored is None:
            raise self.error(field, "the attribute is missing", _RESTORE)
        value = np.asarray(stored)
        whole = value.size == 1 and value.dtype.kind in "iuf" and float(value.item()).is_integer()
        if not whole:
            found = reprlib.repr(value.tolist())
            raise self.error(field, f"is {found}, not one whole number", _REWRITE)
        return int(value.item())

    def number(self, field: str) -> int:
        value = self.integer(field)
        if not 0 <= value < 2**31:
            raise self.error(field, f"is {value}, outside 0 to {2**31 - 1}", _REWRITE)
        return value

    def text(self, field: str) -> str | None:
        value = self.attribute(field)
        if value is None:
            return None
        if isinstance(value, bytes):
            value = value.decode("utf-8", errors="surrogateescape")
        if not isinstance(value, str):
            raise self.error(field, f"is {reprlib.repr(value)}, not text", _REWRITE)
        # What is not UTF-8 becomes surrogates, which no text file or terminal takes.
        if any("\ud800" <= letter <= "\udfff" for letter in value):
            raise self.error(field, f"is {value!r}, which is not UTF-8", _REWRITE)
        return value


def _written(stored: h5py.Dataset, rows: int) -> bool:
    """Whether all of the first `rows` have a place in the file."""
    shape = (rows, *stored.shape[1:])
    if stored.chunks is None:
        size = stored.id.get_type().get_size()
        return stored.id.get_storage_size() >= math.prod(shape) * size
    wanted = math.prod(-(-n // chunk) for n, chunk in zip(shape, stored.chunks, strict=True))
    found = 0

    def count(chunk: Any) -> None:
        nonlocal found
        found += chunk.chunk_offset[0] < rows

    stored.id.chunk_iter(count)
    return found >= wanted
