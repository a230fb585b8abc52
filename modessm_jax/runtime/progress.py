"""What a run is doing and how long each part of it takes."""

import json
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from modessm_jax.runtime.files import write_json
from modessm_jax.text import percent

WORK = ("step", "input", "evaluation")  # what is lost where a run has to do it again
ACCOUNTS = ("compile", *WORK, "checkpoint", "lost")
_SECONDS_BETWEEN_NOTES = 5.0


class Clock:
    """Seconds of wall time by what they were spent on.

    "input" is the time the loop waits for its next batch, "step" the time it takes to place the
    batch, start the update and fetch the figures of the one before: on an accelerator, about the
    time the device computes. "lost" is work that no checkpoint kept, because the process was killed
    or the run went back.

    Args:
      path: where to note the accounts now and then, so that the work of a process that is killed is
        known to be lost; begins with what an earlier process noted there.
    """

    def __init__(self, path: Path | None = None):
        self._path = path
        self.seconds = {name: 0.0 for name in ACCOUNTS} | _noted(path)
        self._noted = time.monotonic()

    @contextmanager
    def account(self, name: str) -> Iterator[None]:
        """Charges the time spent inside to `name`."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] += time.perf_counter() - start

    def go_back(self, seconds: Mapping[str, float]) -> None:
        """Counts as lost the work done since the accounts stood at `seconds`.

        The others go on; where the file that notes them was lost, from what they stood at then.
        """
        for name in ACCOUNTS:
            if name not in WORK:
                self.seconds[name] = max(self.seconds[name], seconds.get(name, 0.0))
        for name in WORK:
            kept = seconds.get(name, 0.0)
            self.seconds["lost"] += max(self.seconds[name] - kept, 0.0)
            self.seconds[name] = kept

    def note(self, *, now: bool = False) -> None:
        """Writes the accounts to the file; at most every few seconds if it is not to be now."""
        due = time.monotonic() - self._noted > _SECONDS_BETWEEN_NOTES
        if self._path is not None and (now or due):
            self._noted = time.monotonic()
            # A full disk is no reason to end a run that has nothing else to write.
            with suppress(OSError):
                write_json(self._path, self.seconds)

    @property
    def input_stall(self) -> float:
        """Fraction of the accounted time, but for what was lost, spent waiting for data."""
        counted = sum(self.seconds.values()) - self.seconds["lost"]
        return self.seconds["input"] / max(counted, 1e-9)

    @property
    def stepping(self) -> float:
        """Seconds that scale with the number of steps: waiting for data and updating."""
        return self.seconds["step"] + self.seconds["input"]


def _noted(path: Path | None) -> dict[str, float]:
    try:
        return {} if path is None else json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}  # no earlier process, or one that fell with the machine: its loss is not known


class Progress:
    """One line that is rewritten on a terminal; plain lines now and then anywhere else.

    `steps` is how many there will be; it may change while they are made. `noun` says of what.
    """

    def __init__(
        self, steps: int, clock: Clock, *, start: int = 0, stream: Any = None, noun: str = "step"
    ):
        self.steps = steps
        self._noun = noun
        self._clock = clock
        self._stream = sys.stdout if stream is None else stream
        self._terminal = self._stream.isatty()
        self._width = 0
        self._begun = (start, clock.stepping)
        self._last = (start, clock.stepping)
        self._shown = 0.0

    def say(self, text: str) -> None:
        """Prints a line that stays."""
        self._clear()
        print(text, file=self._stream, flush=True)

    def rate(self, step: int) -> float:
        """Steps per second since the last call, compilation, evaluation and saving left out."""
        (before, seconds), self._last = self._last, (step, self._clock.stepping)
        return (step - before) / max(self._last[1] - seconds, 1e-9)

    def show(self, step: int, figures: str, rate: float) -> None:
        """Reports a step that is logged."""
        self._draw(self._line(step, figures, rate), keep=not self._terminal)

    def tick(self, step: int, figures: str) -> None:
        """Rewrites the line on a terminal, at most twice a second; does nothing elsewhere."""
        now = time.monotonic()
        if self._terminal and now - self._shown > 0.5:
            self._shown = now
            self._draw(self._line(step, figures, None), keep=False)

    def _line(self, step: int, figures: str, rate: float | None) -> str:
        start, seconds = self._begun
        mean = (step - start) / max(self._clock.stepping - seconds, 1e-9)
        left = _duration((self.steps - step) / max(mean, 1e-9))
        shown = mean if rate is None else rate
        return (
            f"{self._noun} {step}/{self.steps}  {shown:.2f} {self._noun}s/s  {left} left  {figures}"
        )

    def _draw(self, line: str, *, keep: bool) -> None:
        self._clear()
        self._stream.write(line + ("\n" if keep else ""))
        self._stream.flush()
        self._width = 0 if keep else len(line)

    def _clear(self) -> None:
        if self._width:
            self._stream.write("\r" + " " * self._width + "\r")
            self._width = 0


def format_accounts(seconds: Mapping[str, float]) -> str:
    """What a run spent its time on, in all its processes, as one line."""
    total = max(sum(seconds.values()), 1e-9)
    parts = [f"{name} {_duration(spent)} ({percent(spent / total)})"
             for name, spent in sorted(seconds.items(), key=lambda item: -item[1])]  # fmt: skip
    return f"time {_duration(total)}: " + ", ".join(parts)


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"
