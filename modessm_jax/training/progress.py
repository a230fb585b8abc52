"""What a run is doing and how long each part of it takes."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

ACCOUNTS = ("compile", "step", "input", "evaluation", "checkpoint")


class Clock:
    """Seconds of wall time by what they were spent on.

    "input" is the time the loop waits for its next batch, "step" the time it takes to place the
    batch, start the update and fetch the figures of the one before: on an accelerator, about the
    time the device computes. `seconds` may start from the accounts of an interrupted run.
    """

    def __init__(self, seconds: dict[str, float] | None = None):
        self.seconds = {name: 0.0 for name in ACCOUNTS} | (seconds or {})

    @contextmanager
    def account(self, name: str) -> Iterator[None]:
        """Charges the time spent inside to `name`."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] += time.perf_counter() - start

    @property
    def input_stall(self) -> float:
        """Fraction of the accounted time spent waiting for data."""
        return self.seconds["input"] / max(sum(self.seconds.values()), 1e-9)

    @property
    def stepping(self) -> float:
        """Seconds that scale with the number of steps: waiting for data and updating."""
        return self.seconds["step"] + self.seconds["input"]


class Progress:
    """One line that is rewritten on a terminal; plain lines now and then anywhere else.

    `steps` is how many there will be; it may change while they are made.
    """

    def __init__(self, steps: int, clock: Clock, *, start: int = 0, stream: Any = None):
        self.steps = steps
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
        return f"step {step}/{self.steps}  {shown:.2f} steps/s  {left} left  {figures}"

    def _draw(self, line: str, *, keep: bool) -> None:
        self._clear()
        self._stream.write(line + ("\n" if keep else ""))
        self._stream.flush()
        self._width = 0 if keep else len(line)

    def _clear(self) -> None:
        if self._width:
            self._stream.write("\r" + " " * self._width + "\r")
            self._width = 0


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"
