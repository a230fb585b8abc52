"""Recordings: the trials of one split of a data set in the T15 layout, read once and checked.

`<root>/<session>/data_{train,val,test}.hdf5`; any session names, any channel count. `hdf5.py` reads
one file; `validation.py` has the rules for bad trials.
"""

import functools
import os
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from absl import logging
from jaxtyping import Float32, Int32

from modessm_jax.data import hdf5, validation
from modessm_jax.data.corpora import corpora_of_session, read_corpora
from modessm_jax.data.hdf5 import Key, Trial, describe
from modessm_jax.data.index import Facts, Index
from modessm_jax.data.normalization import RunningNormalization, State
from modessm_jax.data.roots import WHERE_DATA_COMES_FROM, no_recordings, session_names
from modessm_jax.data.selection import (
    name_excluding,
    parse_channels,
    read_exclusions,
    take_channels,
)
from modessm_jax.data.validation import EXCLUDE, DataError, Finding, data_error, repair, report
from modessm_jax.runtime.watchdog import alive
from modessm_jax.text import describe_left_out, spoken

SPLITS = ("train", "val", "test")


@dataclass(eq=False, repr=False)
class Recordings:
    """The trials of one split, sessions in alphabetical order, each in the order of recording.

    Features stay in memory or are read from the files when asked for. A pickled copy (in a worker
    process) always reads from the files, so that the data are not copied into every worker.

    Attributes:
        split: "train", "val" or "test".
        sessions: names of all sessions under the root, whatever the split.
        session_ids_by_name: what `session_ids` gives; by default the places in `sessions`.
        channels: features per bin.
        trials: the trials in use.
        excluded: trials left out, and why.
        repaired: trials with non-finite values, which `features` gives as 0.
        checksums: CRC-32 of every trial's features as float32, before repair.
        memory: features of every trial, None for those not read yet; None if they are read from
            the files.
        chosen: the channels in use, None for all.
        normalization: of the features; None if they are used as they are stored.
        starts: its state before each trial, by the trial's index.
    """

    split: str
    sessions: tuple[str, ...]
    channels: int
    trials: list[Trial]
    excluded: list[Finding]
    repaired: list[Finding]
    checksums: list[int]
    memory: list[np.ndarray | None] | None
    chosen: np.ndarray | None = None
    normalization: RunningNormalization | None = None
    starts: dict[int, State] = field(default_factory=dict)
    session_ids_by_name: Mapping[str, int] = field(default_factory=dict)
    _handles: dict[Path, h5py.File] = field(default_factory=dict)

    def __post_init__(self):
        if not self.session_ids_by_name:
            self.session_ids_by_name = {name: index for index, name in enumerate(self.sessions)}

    def __len__(self) -> int:
        return len(self.trials)

    @property
    def bins(self) -> Int32[np.ndarray, "trials"]:
        """Real bins of every trial."""
        return np.array([trial.bins for trial in self.trials], np.int32)

    @property
    def session_ids(self) -> Int32[np.ndarray, "trials"]:
        """A number for the session of every trial, which a model knows it by."""
        ids = self.session_ids_by_name
        return np.array([ids[trial.session] for trial in self.trials], np.int32)

    @cached_property
    def block_ids(self) -> Int32[np.ndarray, "trials"]:
        """A number for each trial, equal for those of one block of one session."""
        blocks = [(trial.session, trial.block) for trial in self.trials]
        ids = {block: index for index, block in enumerate(dict.fromkeys(blocks))}
        return np.array([ids[block] for block in blocks], np.int32)

    @property
    def labelled(self) -> bool:
        """Whether the split has labels; all its trials have, or none."""
        return self.trials[0].labels is not None

    def features(self, index: int) -> Float32[np.ndarray, "bins channels"]:
        """The features of trial `index`, all finite; read-only.

        Raises:
            DataError: the file has become unreadable.
        """
        kept = None if self.memory is None else self.memory[index]
        if kept is not None:
            return kept
        values = self._stored(index)
        if self.normalization is None:
            return self._keep(index, repair(values))
        given = self.starts[index], values, self.trials[index].name
        return self._keep(index, self.normalization(*given)[1])

    def normalize(self) -> None:
        """Normalises all trials in the order of recording, each session from its first to last."""
        rule: Any = self.normalization
        trials, states = self.trials, {}
        order = sorted(range(len(trials)), key=lambda i: (trials[i].block, trials[i].number))
        for index in order:
            alive()
            session = trials[index].session
            self.starts[index] = states.get(session, rule.start(self.channels))
            given = self.starts[index], self._stored(index), trials[index].name
            states[session], values = rule(*given)
            self._keep(index, values)

    def _stored(self, index: int) -> Float32[np.ndarray, "bins channels"]:
        """The features of a trial before repair and normalisation."""
        kept = None if self.memory is None else self.memory[index]
        if kept is not None:
            return kept
        trial = self.trials[index]
        values = take_channels(self._read(trial), self.chosen, f"{trial.file}, {trial.group}")
        if zlib.crc32(values.data) != self.checksums[index]:
            problem = "has other values now than when it was checked"
            remedy = "Do not change the data while a job reads them; delete the index of the split"
            raise data_error(trial.file, trial.group, "input_features", problem, remedy)
        return values

    def _keep(self, index: int, values: np.ndarray) -> Float32[np.ndarray, "bins channels"]:
        """The values, read-only, in memory if all are to be."""
        values.setflags(write=False)
        if self.memory is not None:
            self.memory[index] = values
        return values

    def _read(self, trial: Trial) -> Float32[np.ndarray, "bins channels"]:
        """All channels of a trial, from its file, which stays open."""
        if trial.file not in self._handles:
            self._handles[trial.file] = hdf5.open_file(trial.file)
        return hdf5.read_features(self._handles[trial.file], trial)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"memory": None, "_handles": {}}


def read_recordings(
    root: str | Path,
    split: str,
    *,
    sessions: Sequence[str] | None = None,
    table: str | Path | None = None,
    memory_gib: float = 8.0,
    expect_channels: int | None = None,
    exclude: Iterable[str] = (),
    channels: str = "",
    normalization: RunningNormalization | None = None,
    index_folder: str | Path | None = None,
) -> Recordings:
    """Reads and checks one split.

    Every value is read, to find dead channels and for the checksums, unless an index has them (see
    `index.py`). A session without a file of this split is skipped (four sessions of T15 have only
    training data).

    Args:
        root: folder of session folders.
        split: "train", "val" or "test".
        sessions: names to read; none or empty for all. Session ids do not depend on it.
        table: CSV of corpora by block (see `corpora.py`); none or empty for no corpora.
        memory_gib: features are kept in memory if they take no more than this, in GiB.
        expect_channels: the channel count a model was built for.
        exclude: trials and blocks to leave out (see `selection.read_exclusions`).
        channels: those to use (see `selection.parse_channels`); empty for all.
        normalization: of the features; all of them are then read at once. None: as they are stored.
        index_folder: where the index is kept if the root is read-only; without one, an index is
            used but none is written.

    Raises:
        DataError: there are no such data, or a file is unreadable or contradicts the layout.
    """
    if not str(root):
        raise DataError(f"there is no data root: give --config.data.root. {WHERE_DATA_COMES_FROM}.")
    root = Path(root)
    names = session_names(root)
    _check_split(split)
    chosen = sorted(set(sessions)) if sessions else names
    unknown = [name for name in chosen if name not in names]
    if unknown:
        problem = f"has no session {', '.join(unknown)}"
        remedy = f"It holds {', '.join(names)}"
        if any("," in name for name in unknown):
            remedy += """. Write several as --config.data.sessions="('first','second')\""""
        raise data_error(root, "", "", problem, remedy)
    corpora = read_corpora(Path(table)) if table else {}

    recordings = Recordings(split, names, 0, [], [], [], [], [], parse_channels(channels))
    recordings.normalization = normalization
    excluded = set(read_exclusions(exclude))
    loader = _Loader(recordings, memory_gib, expect_channels, excluded)
    index = Index(split, channels, [root, *([Path(index_folder)] if index_folder else [])])
    for name in chosen:
        file = root / name / f"data_{split}.hdf5"
        # Not `exists`: a link to a missing file is an error, not a session without this split.
        if os.path.lexists(file):
            blocks = corpora_of_session(corpora, name)
            known = index.find(root, file, name, blocks)
            if known is None:
                labels = split != "test"
                trials = hdf5.read_trials(file, name, labels=labels, corpora=blocks)
                found = [(trial, loader.add(trial, read, None)) for trial, read in trials]
            else:
                found = [
                    (trial, loader.add(trial, functools.partial(recordings._read, trial), facts))
                    for trial, facts in known
                ]
            index.put(file, found)
    if index_folder:
        index.save()
    if not loader.found:
        raise no_recordings(root, split)
    if not recordings.trials:
        example = recordings.excluded[0]
        problem = f"none of the {len(recordings.excluded)} {split} trials is usable, e.g. "
        problem += f"{example.trial}, {example.field}: {example.reason}"
        raise data_error(root, "", "", problem, "Check what recorded or wrote the data")
    if normalization is not None:
        recordings.normalize()
    report(split, len(recordings), recordings.excluded, recordings.repaired)
    return recordings


def list_trials(root: str | Path, split: str) -> dict[Key, str | None]:
    """Every trial of a split with its sentence, None where that is withheld.

    Sessions are in alphabetical order, which is that of their dates, and the trials of each in the
    order of recording: the benchmarks' order. Features are not read.

    Raises:
        DataError: there are no such data, or a file is unreadable or contradicts the layout.
    """
    root = Path(root)
    _check_split(split)
    files = sorted(root.glob(f"*/data_{split}.hdf5"))
    if not files:
        raise no_recordings(root, split)
    sentences: dict[Key, str | None] = {}
    for file in files:
        sentences |= hdf5.read_sentences(file, file.parent.name)
    return sentences


def read_transcripts(
    root: str | Path, split: str, sessions: Iterable[str] | None = None
) -> list[str]:
    """The sentences of a split, their words by `text.spoken`, in the order of `list_trials`.

    All sessions are read unless some are named. Trials without a sentence are left out, counted
    and named, and so are words that are not spelt in letters.

    Raises:
        DataError: there are no such data, or no trial has a sentence, as those of "test" have not.
    """
    chosen, left_out = set(sessions or ()), Counter[str]()
    index = list_trials(root, split)
    index = {key: sentence for key, sentence in index.items() if not chosen or key[0] in chosen}
    found = [sentence for sentence in index.values() if sentence is not None]
    if len(found) < len(index):
        lacking = [key for key, sentence in index.items() if sentence is None]
        logging.warning("%s, %s: %s", root, split, unscored(lacking, len(index)))
    if not found:
        problem = f"the attribute is missing in all {len(index)} trials"
        remedy = "Restore the data set as published, or choose a split with sentences"
        raise data_error(Path(root), split, "sentence_label", problem, remedy)
    words = [" ".join(spoken(sentence, left_out)) for sentence in found]
    if left_out:
        logging.warning("%s, %s: %s", root, split, describe_left_out(left_out))
    return words


def unscored(keys: Sequence[Key], trials: int) -> str:
    """What to say of trials without a sentence."""
    names = ", ".join(map(describe, keys))
    return f"{len(keys)} of {trials} trials have no sentence and are not scored: {names}"


def _check_split(split: str) -> None:
    if split not in SPLITS:
        raise DataError(f"there is no split {split!r}. Choose one of {', '.join(SPLITS)}.")


class _Loader:
    """Fills recordings; checks each trial against the first, excludes those unfit for training."""

    def __init__(
        self, recordings: Recordings, memory_gib: float, channels: int | None, names: Set[str]
    ):
        self.recordings = recordings
        self.found = False  # whether there was any trial
        self.first: Trial | None = None  # that was not left out by name
        self._expected = channels
        self._free_bytes = memory_gib * 2**30
        self._names = names

    def add(
        self, trial: Trial, read: Callable[[], np.ndarray], facts: Facts | None
    ) -> Facts | None:
        """Adds a trial, or leaves it out; returns its facts, if it had them or it was read."""
        alive()
        made, training = self.recordings, self.recordings.split == "train"
        self.found = True
        name = name_excluding(trial, self._names)
        if name is not None:
            made.excluded.append(Finding(trial.name, EXCLUDE, name))
            return facts
        features = None
        if facts is None:
            features = take_channels(read(), made.chosen, f"{trial.file}, {trial.group}")
            bad = validation.bad_channels(features)
            facts = Facts(features.shape[1], *bad, zlib.crc32(features.data))
        channels, dead, nonfinite, checksum = facts
        self._check_alike(trial, channels)
        unfit = validation.length_reason(trial.bins) if training else None
        if unfit is not None:
            made.excluded.append(Finding(trial.name, "n_time_steps", unfit))
            return facts
        reason = f"{dead} dead and {nonfinite} non-finite channels of {made.channels}"
        finding = Finding(trial.name, "input_features", reason)
        if training and dead + nonfinite > validation.MAX_BAD_CHANNELS * made.channels:
            made.excluded.append(finding)
            return facts
        if nonfinite:
            made.repaired.append(finding)
        made.trials.append(trial)
        made.checksums.append(checksum)
        if features is not None and nonfinite and made.normalization is None:
            features = repair(features)
        self._keep(trial, features)
        return facts

    def _keep(self, trial: Trial, features: np.ndarray | None) -> None:
        """Keeps the features in memory while all fit; None will be read when asked for."""
        made = self.recordings
        if made.memory is None:
            return
        if features is not None:
            features.setflags(write=False)
        made.memory.append(features)
        self._free_bytes -= trial.bins * made.channels * np.float32().nbytes
        if self._free_bytes < 0:  # all trials are kept in memory, or none
            logging.info("The %s features exceed memory_gib; they are read from disk", made.split)
            made.memory = None

    def _check_alike(self, trial: Trial, channels: int) -> None:
        """All trials have the same channels; all have labels, or none."""
        place = trial.file, trial.group, "input_features"
        if self.first is None:
            self.first, self.recordings.channels = trial, channels
            if self._expected not in (None, channels):
                problem = f"has {channels} channels, but the model was built for {self._expected}"
                remedy = "Give the data the model was trained on, or train a model for these"
                raise data_error(*place, problem, remedy)
        first = self.first
        if channels != self.recordings.channels:
            problem = f"has {channels} channels, but {first.file}, {first.group} has "
            problem += str(self.recordings.channels)
            remedy = "All trials under one root must have the same channels"
            raise data_error(*place, problem, remedy)
        if (trial.labels is None) != (first.labels is None):
            have, lack = (first, trial) if trial.labels is None else (trial, first)
            problem = f"is missing, but {have.file}, {have.group} has it"
            remedy = "Give labels to all trials of a split or to none"
            raise data_error(lack.file, lack.group, "seq_class_ids", problem, remedy)
