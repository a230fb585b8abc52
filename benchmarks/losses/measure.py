"""Seconds and bytes of a call: paired rounds, their spread, growth and peak memory."""

import ctypes
import gc
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

Call = Callable[[], Any]


class Spread(NamedTuple):
    """Median and quartiles of a sample."""

    median: float
    lower: float
    upper: float


def spread(samples: np.ndarray) -> Spread:
    """Median, lower and upper quartile."""
    lower, median, upper = np.percentile(samples, [25, 50, 75])
    return Spread(float(median), float(lower), float(upper))


class Clock:
    """Times calls against each other, and notes how much of the processor they got.

    `stolen` is the share of the measured seconds in which this process was not running: near zero
    on a quiet machine and one thread.
    """

    def __init__(self) -> None:
        self._wall = 0.0
        self._running = 0.0

    @property
    def stolen(self) -> float:
        return max(0.0, 1 - self._running / self._wall) if self._wall else 0.0

    def rounds(self, calls: Mapping[str, Call], count: int) -> dict[str, np.ndarray]:
        """Seconds of each call in each of `count` rounds.

        Every round makes every call once, so whatever else the machine does strikes all of them
        alike; the round starts one call later each time, so none always follows the same one. Make
        each call once beforehand: the first one pays for more than its work.
        """
        seconds: dict[str, list[float]] = {name: [] for name in calls}
        names = list(calls)
        for number in range(count):
            start = number % len(names)
            for name in names[start:] + names[:start]:
                gc.collect()
                seconds[name].append(self._seconds(calls[name]))
        return {name: np.array(values) for name, values in seconds.items()}

    def _seconds(self, call: Call) -> float:
        running, wall = time.process_time(), time.perf_counter()
        result = call()
        elapsed = time.perf_counter() - wall
        self._running += time.process_time() - running
        self._wall += elapsed
        del result  # kept until here: giving memory back is not what is measured
        return elapsed


def exponent(sizes: Sequence[float], seconds: Sequence[float]) -> float:
    """Least-squares slope of log seconds against log size: 1 is linear growth."""
    return float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])


def peak_bytes(call: Call) -> int | None:
    """How far resident memory rises while `call` runs, its result included.

    Linux only (the high-water mark of /proc/self is reset first); None where it cannot be reset.
    """
    reset = Path("/proc/self/clear_refs")
    if not reset.exists():
        return None
    gc.collect()
    # Memory freed earlier but still held would be used again without being seen.
    ctypes.CDLL(None).malloc_trim(0)
    before = _status("VmRSS")
    reset.write_text("5", encoding="ascii")
    result = call()
    peak = _status("VmHWM")
    del result
    return max(peak - before, 0)


def _status(field: str) -> int:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise ValueError(f"/proc/self/status has no field {field}")


def difference(found: Sequence[np.ndarray], reference: Sequence[np.ndarray]) -> float:
    """Largest difference of two lists of arrays, relative to the largest entry of each array."""
    return max(
        float(np.max(np.abs(a - b)) / np.max(np.abs(b)))
        for a, b in zip(found, reference, strict=True)
    )
