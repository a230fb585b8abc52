"""Sentences decoded live, kept as JSON lines: each is on disk before anybody is shown it.

A line is a sentence, the correction of one by hand, or what the decoder learned from one. Lines are
only ever added, and none is lost when the process or the machine ends: what was being written then
is cut off at the next start.
"""

import errno
import fcntl
import json
import os
import threading
from collections import deque
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from absl import logging

SHOWN = 100  # sentences that are kept to be shown
LONGEST = 1000  # characters of a correction


class Sentences:
    """The sentences in a file, which is begun or gone on with; a context manager.

    Attributes:
        path: of the file.

    Raises:
        ValueError: a line is no sentence.
        OSError: the file cannot be read or written.
    """

    def __init__(self, path: Path):
        self.path = path
        self._recent: deque[dict[str, Any]] = deque(maxlen=SHOWN)  # with their corrections
        self._last = 0  # the number of the last one
        self._lock = threading.Lock()
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("ab", buffering=0)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._file.close()
            raise ValueError(
                f"{path} is in use by another process; end that one, or give another --out"
            ) from error
        try:
            self._read()
        except ValueError:
            self._file.close()
            raise

    def add(self, sentence: Mapping[str, Any]) -> dict[str, Any]:
        """Writes a sentence, with a number (`id`) of its own; returns what was written.

        Args:
            sentence: plain JSON values, with at least its `text`.
        """
        with self._lock:
            written = {"id": self._last + 1, "written": _now(), **sentence}
            self._write(written)
            return written

    def add_learned(self, number: int, learned: Mapping[str, Any]) -> dict[str, Any]:
        """Writes what the decoder learned from a sentence; returns what was written.

        Args:
            number: of the sentence.
            learned: plain JSON values.
        """
        with self._lock:
            written = {"learned_from": number, "written": _now(), **learned}
            self._write(written)
            return written

    def correct(self, number: int, text: str) -> dict[str, Any]:
        """Writes a correction; returns what was written.

        Args:
            number: of the sentence.
            text: what was meant.

        Raises:
            ValueError: there is no such sentence, or the text is empty or too long.
        """
        text = " ".join(text.split())
        if not 0 < len(text) <= LONGEST:
            raise ValueError(f"a correction has 1 to {LONGEST} characters, not {len(text)}")
        with self._lock:
            if not 1 <= number <= self._last:
                raise ValueError(f"there is no sentence {number} to correct")
            written = {"corrects": number, "written": _now(), "text": text}
            self._write(written)
            return written

    def shown(self) -> list[dict[str, Any]]:
        """The last sentences, the latest last."""
        with self._lock:
            return list(self._recent)

    def __enter__(self) -> "Sentences":
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()

    def _read(self) -> None:
        whole = 0
        with self.path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if not line.endswith(b"\n"):
                    logging.warning("%s: cut off a line half written: %r", self.path, line[:200])
                    self._file.truncate(whole)
                    return
                whole += len(line)
                try:
                    self._remember(json.loads(line))
                except (ValueError, KeyError, TypeError) as error:
                    raise ValueError(
                        f"{self.path}, line {number}: no sentence ({error!r}). Mend the line, or "
                        "give another file with --out"
                    ) from error

    def _write(self, line: dict[str, Any]) -> None:
        """Adds a line, all of it or nothing."""
        text = json.dumps(line).encode() + b"\n"
        before = os.fstat(self._file.fileno()).st_size
        try:
            if self._file.write(text) != len(text):
                raise OSError(errno.ENOSPC, "written in part", str(self.path))
            os.fsync(self._file.fileno())
        except OSError:
            self._file.truncate(before)
            raise
        self._remember(line)

    def _remember(self, line: dict[str, Any]) -> None:
        if "learned_from" in line:
            return
        if "corrects" not in line:
            self._last = int(line["id"])
            self._recent.append(line | {"text": str(line["text"])})
            return
        for sentence in self._recent:
            if sentence["id"] == line["corrects"]:
                sentence["corrected"] = str(line["text"])


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
