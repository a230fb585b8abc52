"""An index of recordings: what reading them found, so that a second start need not read them.

One file for each split, `index_<split>.json`, beside the sessions, or in the run directory where
the recordings are read-only. For every file, as it was (size and time of change), it holds the
trials, and what `Facts` has of each. A file that changed since is read again. The index can always
be deleted.
"""

import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from modessm_jax.data.hdf5 import Trial
from modessm_jax.data.validation import data_error

FORMAT = 1
_SETTLED = 2.0  # seconds; of a file that changed later, a further change may leave its time alone


class Facts(NamedTuple):
    """What reading a trial's features found."""

    channels: int
    dead: int  # channels; see `validation.bad_channels`
    nonfinite: int
    checksum: int  # CRC-32 of the features as float32, before repair


class Index:
    """The index of one split.

    Args:
        split: its name.
        channels: `data.channels`, which the facts depend on.
        folders: where it may be: it is read from the first that has it, and written to the first
            that can be written to.

    Raises:
        DataError: a file of this name is no index.
    """

    def __init__(self, split: str, channels: str, folders: Sequence[Path]):
        self._places = [folder / f"index_{split}.json" for folder in folders]
        self._head = {"format": FORMAT, "channels": channels}
        self._files: dict[str, Any] = {}
        self._states: dict[Path, tuple[str, dict[str, int]] | None] = {}  # before they were read
        for place in self._places:
            if place.is_file():
                self._files = self._read(place)
                break
        self._saved = json.dumps(self._files)

    def _read(self, place: Path) -> dict[str, Any]:
        try:
            saved = json.loads(place.read_text(encoding="utf-8"))
            same = {key: saved[key] for key in self._head} == self._head
            return saved["files"] if same else {}
        except (ValueError, KeyError, TypeError) as error:
            problem = f"is no index of recordings ({type(error).__name__})"
            raise data_error(place, "", "", problem, "Delete it; it is made anew") from error

    def find(
        self, root: Path, file: Path, session: str, corpora: Mapping[int, str]
    ) -> list[tuple[Trial, Facts | None]] | None:
        """The trials of a file with their facts, where known; None if it is new or has changed."""
        if not file.exists():  # a link to a missing file
            return None
        stat, name = file.stat(), str(file.relative_to(root))
        state = {"bytes": stat.st_size, "changed_ns": stat.st_mtime_ns}
        settled = time.time() - stat.st_mtime > _SETTLED
        self._states[file] = (name, state) if settled else None
        known = self._files.get(name, {})
        if {key: known.get(key) for key in state} != state:
            return None
        found: list[tuple[Trial, Facts | None]] = []
        for group, block, number, bins, labels, sentence, facts in known["trials"]:
            ids = None if labels is None else np.array(labels, np.int32)
            corpus = corpora.get(block)
            trial = Trial(session, block, number, file, group, bins, ids, sentence, corpus)
            found.append((trial, None if facts is None else Facts(*facts)))
        return found

    def put(self, file: Path, found: Sequence[tuple[Trial, Facts | None]]) -> None:
        """Replaces what is known of a file that was looked for, unless it is too new."""
        state = self._states.get(file)
        if state is None:
            return
        trials = [
            (t.group, t.block, t.number, t.bins, None if t.labels is None else t.labels.tolist(),
             t.sentence, facts)
            for t, facts in found
        ]  # fmt: skip
        self._files[state[0]] = state[1] | {"trials": trials}

    def save(self) -> None:
        """Writes it where that is possible, if it has changed."""
        text = json.dumps(self._files)
        place = next((p for p in self._places if os.access(p.parent, os.W_OK)), None)
        if text == self._saved or place is None:
            return
        own = place.with_name(f"{place.name}.{os.getpid()}")  # another job may write it too
        own.write_text(json.dumps(self._head | {"files": self._files}), encoding="utf-8")
        os.replace(own, place)
