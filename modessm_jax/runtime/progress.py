"""The progress line of a run, and the wall time that each part of it takes."""

import json
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from modessm_jax.runtime.files import write_json
from modessm_jax.text import percent

_WORK = ("step", "input", "evaluation")  # counts as lost where a run has to do it again
_ACCOUNTS = ("compile", *_WORK, "checkpoint", "lost")
_STEPPING = ("step", "input")  # what scales with the number of steps
_CPU = "cpu"  # what a clock notes besides its accounts
_SECONDS_BETWEEN_WRITES = 5.0


class Clock:
    """Seconds of wall time by account: what they were spent on.

    "input" is the time the loop waits for its next batch. "step" is the time it takes to copy the
    batch to the devices, start the update and fetch the metrics of the one before: on an
    accelerator, about the time the device computes. "lost" is work that no checkpoint kept, because
    the process was killed or the run rolled back.

    Args:
      path: file that the accounts are written to now and then, so that the work of a process that
        is killed can be counted as lost; the clock starts from what an earlier process wrote there.

    Attributes:
        seconds: of wall time, by account.
        cpu: seconds that all threads of the process computed in "step" and "input", without what
            was lost.
    """

    def __init__(self, path: Path | None = None):
        self._path = path
        self.seconds = {name: 0.0 for name in _ACCOUNTS} | _read(path)
        self.cpu = self.seconds.pop(_CPU, 0.0)
        self._written = time.monotonic()

    @contextmanager
    def account(self, name: str) -> Iterator[None]:
        """Adds the time spent inside to the account `name`."""
        start, cpu = time.perf_counter(), time.process_time()
        try:
            yield
        finally:
            self.seconds[name] += time.perf_counter() - start
            if name in _STEPPING:
                self.cpu += time.process_time() - cpu

    def noted(self) -> dict[str, float]:
        """All that the clock knows, for `go_back`."""
        return {**self.seconds, _CPU: self.cpu}

    def go_back(self, seconds: Mapping[str, float]) -> None:
        """Counts as lost the work done since the clock had noted `seconds`.

        The other accounts keep what they have; where the file was lost, they restart at `seconds`.
        """
        for name in _ACCOUNTS:
            if name not in _WORK:
                self.seconds[name] = max(self.seconds[name], seconds.get(name, 0.0))
        for name in _WORK:
            kept = seconds.get(name, 0.0)
            self.seconds["lost"] += max(self.seconds[name] - kept, 0.0)
            self.seconds[name] = kept
        self.cpu = seconds.get(_CPU, 0.0)

    def save(self, *, now: bool = False) -> None:
        """Writes the accounts to the file; unless `now`, at most every few seconds."""
        due = time.monotonic() - self._written > _SECONDS_BETWEEN_WRITES
        if self._path is not None and (now or due):
            self._written = time.monotonic()
            # A full disk is no reason to end a run that has nothing else to write.
            with suppress(OSError):
                write_json(self._path, self.noted())

    @property
    def input_stall(self) -> float:
        """Fraction of the time, without what was lost, that was spent waiting for data."""
        counted = sum(self.seconds.values()) - self.seconds["lost"]
        return self.seconds["input"] / max(counted, 1e-9)

    @property
    def stepping(self) -> float:
        """Seconds that scale with the number of steps: waiting for data and updating."""
        return sum(self.seconds[name] for name in _STEPPING)


def _read(path: Path | None) -> dict[str, float]:
    try:
        return {} if path is None else json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}  # no earlier process, or the machine crashed: what was lost is not known


class Progress:
    """Shows progress: on a terminal one line that is rewritten, elsewhere a line per logged step.

    Args:
      steps: how many there will be; the attribute may be changed later.
      clock: whose "step" and "input" accounts give the rate and the time left.
      start: the step to start from.
      stream: stdout by default.
      noun: what a step is called.
    """

    def __init__(
        self, steps: int, clock: Clock, *, start: int = 0, stream: Any = None, noun: str = "step"
    ):
        self.steps = steps
        self._noun, self._clock = noun, clock
        self._stream = sys.stdout if stream is None else stream
        self._terminal = self._stream.isatty()
        self._width = 0  # of the line on the terminal
        self._begun = self._last = (start, clock.stepping)
        self._shown = 0.0  # when that line was last rewritten

    def print(self, text: str) -> None:
        """Prints a line that stays."""
        self._clear()
        print(text, file=self._stream, flush=True)

    def rate(self, step: int) -> float:
        """Steps per second since the last call, without compilation, evaluation and saving."""
        (before, seconds), self._last = self._last, (step, self._clock.stepping)
        return (step - before) / max(self._last[1] - seconds, 1e-9)

    def show(self, step: int, figures: str, rate: float) -> None:
        """Shows a step that is logged."""
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
    """What a run spent its time on, resumptions included, as one line."""
    total = max(sum(seconds.values()), 1e-9)
    longest_first = sorted(seconds.items(), key=lambda item: -item[1])
    parts = [
        f"{name} {_duration(spent)} ({percent(spent / total)})" for name, spent in longest_first
    ]
    return f"time {_duration(total)}: " + ", ".join(parts)


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"
