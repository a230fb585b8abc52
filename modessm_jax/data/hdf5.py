"""Reads and writes one file of the T15 layout (Brain-to-Text '25).

A file holds groups `trial_0000`, `trial_0001`, ... in the order of recording. Each has the dataset
`input_features` [frames, channels], and attributes `n_time_steps`, `block_num`, `trial_num` and
`session`; where labels are public also `seq_class_ids` (zero-padded phoneme ids) and the attributes
`seq_len` and `sentence_label`. Real lengths are those of the attributes: arrays may be padded.
"""

import functools
import math
import re
import reprlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
from h5py import h5o  # pyright: ignore[reportAttributeAccessIssue]
from jaxtyping import Float, Float32, Int32

from modessm_jax.data.validation import MAX_BYTES, MIN_BINS, DataError, data_error
from modessm_jax.phonemes import BLANK, CLASSES
from modessm_jax.runtime.files import HDF5, content

_RESTORE = "Restore the file from the published data set"
_REWRITE = "Correct the program that wrote the file, or restore it from the published data set"

_TRIAL = re.compile(r"trial_[0-9]{1,9}")

# What h5py raises where a file is damaged, or holds a type that NumPy lacks.
_UNREADABLE = (OSError, KeyError, RuntimeError, TypeError, ValueError)

_AT_ONCE = 2**16  # bytes; of smaller datasets HDF5 reads all faster than a part

Key = tuple[str, int, int]  # session, block number, trial number


def describe(key: Key) -> str:
    """A trial's key as messages and reports show it."""
    session, block, number = key
    return f"{session}/block {block}/trial {number}"


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
        """Session, block and number, as messages and reports show them."""
        return describe((self.session, self.block, self.number))


def open_file(file: Path) -> h5py.File:
    """Opens for reading.

    Raises:
        DataError: the file is missing, truncated or not HDF5.
    """
    try:
        # Without locks: network disks often refuse them, and nothing writes to the file.
        return h5py.File(file, "r", locking=False)
    except OSError as error:
        what = content(file) if file.is_file() else ""
        known = f"it is {what}" if what not in ("", HDF5) else "it may be truncated"
        problem = f"cannot be opened as HDF5, {known} ({error})"
        raise data_error(file, "", "", problem, _RESTORE) from error


def read_trials(
    file: Path, session: str, *, labels: bool, corpora: dict[int, str]
) -> Iterator[tuple[Trial, Callable[[], np.ndarray]]]:
    """Every trial of a file in the order of recording, and a call that reads its features.

    The call gives float32 [bins, channels], not yet repaired, until the next trial is asked for.

    Args:
        file: `data_train.hdf5`, `data_val.hdf5` or `data_test.hdf5`.
        session: name of the folder; the attribute `session` must agree.
        labels: whether every trial must have labels.
        corpora: name of the corpus by block.

    Raises:
        DataError: the file is unreadable or contradicts the layout.
    """
    with open_file(file) as handle:
        seen: dict[Key, str] = {}
        for name in _trial_names(file, handle):
            reader = _Reader(file, handle, name)
            bins = reader.integer("n_time_steps")
            _, block, number = reader.key(session, seen)
            ids = reader.labels(bins) if labels or reader.labelled() else None
            sentence, corpus = reader.text("sentence_label"), corpora.get(block)
            trial = Trial(session, block, number, file, name, bins, ids, sentence, corpus)
            yield trial, functools.partial(reader.features, bins)


def read_sentences(file: Path, session: str) -> dict[Key, str | None]:
    """The sentence (None if withheld) of every trial of a file, in the order of recording.

    Features and labels are not read.

    Raises:
        DataError: the file is unreadable or contradicts the layout.
    """
    with open_file(file) as handle:
        seen: dict[Key, str] = {}
        trials = (_Reader(file, handle, name) for name in _trial_names(file, handle))
        return {one.key(session, seen): one.text("sentence_label") for one in trials}


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
    """Appends a trial to an open file, without the labels or the sentence that are None."""
    group = handle.create_group(f"trial_{len(handle):04d}")
    group.create_dataset("input_features", data=features.astype(np.float32), compression="gzip")
    group.attrs["n_time_steps"] = len(features)
    group.attrs.update(session=session, block_num=block, trial_num=number)
    if labels is not None:
        group["seq_class_ids"] = _padded(labels)
        group.attrs["seq_len"] = len(labels)
    if sentence is not None:
        group["transcription"] = _padded(np.array([ord(letter) for letter in sentence]))
        group.attrs["sentence_label"] = sentence


def _padded(ids: np.ndarray) -> np.ndarray:
    """The ids with zeros at the end, at least 500 in all as in T15's files."""
    return np.pad(ids.astype(np.int32), (0, max(0, 500 - len(ids))))


def _trial_names(file: Path, handle: h5py.File) -> list[str]:
    """The names of the groups, sorted by number: as text, trial_10000 comes before trial_9999."""
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
    for name in names:
        if not _TRIAL.fullmatch(name):
            problem = "is not the name of a trial"
            remedy = "Name all groups trial_0000, trial_0001, ... in the order of recording"
            raise data_error(file, name, "", problem, remedy)
    return sorted(names, key=lambda name: int(name.removeprefix("trial_")))


class _Reader:
    """Reads and checks the fields of one trial's group."""

    def __init__(self, file: Path, handle: h5py.File, name: str):
        self.file = file
        self.name = name
        with self.reading("", "the group"):
            group = h5o.open(handle.id, name.encode())
        if not isinstance(group, h5py.h5g.GroupID):
            raise self.error("", "is not a group", "A file of this layout holds one group a trial")
        self.group = group

    def error(self, field: str, problem: str, remedy: str = _REWRITE) -> DataError:
        return data_error(self.file, self.name, field, problem, remedy)

    def reading(self, field: str, what: str) -> "_Reading":
        return _Reading(self, field, what)

    def labelled(self) -> bool:
        with self.reading("", "the group"):
            return b"seq_class_ids" in self.group or h5py.h5a.exists(self.group, b"seq_len")

    def key(self, session: str, seen: dict[Key, str]) -> Key:
        """The trial's key, new among those `seen` in this file, to which it is added."""
        named = self.text("session")
        if named is not None and named != session:
            problem = f"is {named!r}, but the folder is {session!r}"
            raise self.error("session", problem, "Move the file to the folder of its session")
        key = session, self.number("block_num"), self.number("trial_num")
        first = seen.setdefault(key, self.name)
        if first != self.name:
            problem = f"is {key[2]} in block {key[1]}, and so is that of {first}"
            remedy = "Remove one of the two, or give them different numbers"
            raise self.error("trial_num", problem, remedy)
        return key

    def features(self, bins: int) -> Float32[np.ndarray, "bins channels"]:
        stored = self.dataset("input_features", 2, np.floating)
        frames, channels = stored.shape
        if not channels:
            raise self.error("input_features", "has no channels")
        if not 0 <= bins <= frames:
            problem = f"is {bins}, but input_features holds {frames} frames"
            raise self.error("n_time_steps", problem)
        values = self.values("input_features", stored, bins, written=bins)
        # What float32 cannot hold becomes infinite, and is counted as such.
        with np.errstate(over="ignore", invalid="ignore"):
            return values.astype(np.float32, copy=False)

    def labels(self, bins: int) -> Int32[np.ndarray, "labels"]:
        stored = self.dataset("seq_class_ids", 1, np.integer)
        count = self.integer("seq_len")
        if not 0 < count <= stored.shape[0]:
            problem = f"is {count}, but seq_class_ids holds {stored.shape[0]} ids"
            raise self.error("seq_len", problem)
        # Shorter trials are left out of training, so their labels need not fit.
        if count > bins >= MIN_BINS:
            problem = f"is {count}, more labels than n_time_steps = {bins} frames"
            raise self.error("seq_len", problem)
        values = self.values("seq_class_ids", stored, count + 1, written=count)
        ids, padding = values[:count], values[count:]
        wrong = np.flatnonzero((ids <= BLANK) | (ids >= CLASSES))
        if wrong.size:
            problem = f"holds {ids[wrong[0]]} at position {wrong[0]} of {count}"
            remedy = f"Labels within seq_len are phoneme ids 1 to {CLASSES - 1}; {BLANK} is padding"
            raise self.error("seq_class_ids", problem, remedy)
        if (padding != BLANK).any():
            problem = f"is {count}, but the next of seq_class_ids is {padding[0]}, not padding"
            raise self.error("seq_len", problem)
        return ids.astype(np.int32)

    # By h5py's low-level interface, here and below: T15 has 66,000 datasets and attributes.
    def dataset(self, field: str, rank: int, kind: type[np.generic]) -> "_Dataset":
        """A dataset that is safe to read: of the right type, small enough, and in this file."""
        with self.reading(field, "the dataset"):
            name = field.encode()
            try:
                found = h5o.open(self.group, name)
            except KeyError:
                if name in self.group:
                    raise
                found = None
        if found is None:
            raise self.error(field, "the dataset is missing", _RESTORE)
        if not isinstance(found, h5py.h5d.DatasetID):
            what = "group" if isinstance(found, h5py.h5g.GroupID) else "datatype"
            raise self.error(field, f"is a {what} where a dataset belongs")
        with self.reading(field, "the dataset"):
            stored = _Dataset.of(found)
        dtype, shape, chunks = stored.dtype, stored.shape, stored.chunks
        if shape is None or len(shape) != rank:
            axes = len(shape or ())
            raise self.error(field, f"has {axes} axes (shape {shape}), not {rank}")
        if not np.issubdtype(dtype, kind):
            wanted = "floating point" if kind is np.floating else "integer"
            raise self.error(field, f"is of type {dtype}, not {wanted}")
        # HDF5 reads a compressed chunk whole, even for one value of it.
        size = max(math.prod(shape), math.prod(chunks)) * dtype.itemsize
        if size > MAX_BYTES:
            problem = f"would take {size / 2**30:.3g} GiB (shape {shape}, chunks {chunks or None})"
            problem += f"; a trial may have {MAX_BYTES / 2**30:g} GiB"
            raise self.error(field, problem)
        # Where the other file is missing, HDF5 gives fill values without an error.
        if stored.elsewhere:
            raise self.error(field, "has its values in other files", "Copy them into this file")
        return stored

    def values(self, field: str, stored: "_Dataset", rows: int, *, written: int) -> np.ndarray:
        """The first `rows`; those `written` must be in the file, or HDF5 gives fill values."""
        with self.reading(field, "the values"):
            values = stored.read(rows) if stored.written(written) else None
        if values is None:
            problem = f"not all of the first {written} rows were ever written"
            raise self.error(field, problem, _RESTORE)
        return values

    def attribute(self, field: str) -> Any:
        """The value, text as bytes; None if there is no such attribute."""
        with self.reading(field, "the attribute"):
            name = field.encode()
            try:
                stored = h5py.h5a.open(self.group, name)
            except KeyError:
                if h5py.h5a.exists(self.group, name):
                    raise
                return None
            shape = stored.shape
            if shape is None:  # there is no dataspace
                return h5py.Empty(stored.dtype)
            values = np.empty(shape, stored.dtype)
            stored.read(values)
            return values[()]

    def integer(self, field: str) -> int:
        stored = self.attribute(field)
        if stored is None:
            raise self.error(field, "the attribute is missing", _RESTORE)
        value = np.asarray(stored)
        whole = value.size == 1 and value.dtype.kind in "iuf" and float(value.item()).is_integer()
        if not whole:
            found = reprlib.repr(value.tolist())
            raise self.error(field, f"is {found}, not one whole number")
        return int(value.item())

    def number(self, field: str) -> int:
        value = self.integer(field)
        if not 0 <= value < 2**31:
            raise self.error(field, f"is {value}, outside 0 to {2**31 - 1}")
        return value

    def text(self, field: str) -> str | None:
        value = self.attribute(field)
        if value is None:
            return None
        if isinstance(value, bytes):
            value = value.decode("utf-8", errors="surrogateescape")
        if not isinstance(value, str):
            raise self.error(field, f"is {reprlib.repr(value)}, not text")
        # Bytes that are not UTF-8 become surrogates, which no text file or terminal takes.
        if any("\ud800" <= letter <= "\udfff" for letter in value):
            raise self.error(field, f"is {value!r}, which is not UTF-8")
        return value


class _Reading:
    """Names the file, trial and field where h5py fails; faster than a generator would."""

    def __init__(self, reader: _Reader, field: str, what: str):
        self.reader, self.field, self.what = reader, field, what

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, _UNREADABLE):
            problem = f"{self.what} cannot be read ({error})"
            raise self.reader.error(self.field, problem, _RESTORE) from error


class _Dataset(NamedTuple):
    """A dataset, with what its header says."""

    id: h5py.h5d.DatasetID
    dtype: np.dtype
    shape: tuple[int, ...]  # None where there is no dataspace; `_Reader.dataset` refuses that
    chunks: tuple[int, ...]  # empty where it has none
    elsewhere: bool  # whether values are in other files

    @classmethod
    def of(cls, found: h5py.h5d.DatasetID) -> "_Dataset":
        """Reads the header."""
        created = found.get_create_plist()
        layout = created.get_layout()
        chunks = created.get_chunk() if layout == h5py.h5d.CHUNKED else ()
        elsewhere = layout == h5py.h5d.VIRTUAL or created.get_external_count() > 0
        return cls(found, found.dtype, found.shape, chunks, elsewhere)

    def read(self, rows: int) -> np.ndarray:
        """The first `rows`, at most all."""
        whole = math.prod(self.shape) * self.dtype.itemsize <= _AT_ONCE
        count = self.shape[0] if whole else min(rows, self.shape[0])
        values = np.empty((count, *self.shape[1:]), self.dtype)
        if count == self.shape[0]:
            self.id.read(h5py.h5s.ALL, h5py.h5s.ALL, values)
            return values[:rows]
        if count:
            chosen = self.id.get_space()
            chosen.select_hyperslab((0,) * values.ndim, values.shape)
            self.id.read(h5py.h5s.create_simple(values.shape), chosen, values)
        return values

    def written(self, rows: int) -> bool:
        """Whether space in the file is allocated for all of the first `rows`."""
        shape = (rows, *self.shape[1:])
        if not self.chunks:
            return self.id.get_storage_size() >= math.prod(shape) * self.dtype.itemsize
        wanted = math.prod(-(-n // chunk) for n, chunk in zip(shape, self.chunks, strict=True))
        starts: list[int] = []
        self.id.chunk_iter(lambda chunk: starts.append(chunk.chunk_offset[0]))
        return sum(start < rows for start in starts) >= wanted
