"""How late and how busy a live decoder is: figures of the last minute."""

from dataclasses import dataclass

import numpy as np

DEADLINE = 0.08  # seconds: four bins, as long as an encoder frame of the usual models
_KEPT = 3000  # packets; a minute of one bin each


@dataclass(frozen=True)
class Figures:
    """Times in seconds, of the packets of the last minute; `missed` counts since the start.

    Attributes:
        p50: median time from a packet's arrival until what is new was published.
        p99: 99th percentile of it.
        largest: of it.
        load: share of the time in which the decoder was at work.
        missed: packets that took longer than `DEADLINE`.
    """

    p50: float
    p99: float
    largest: float
    load: float
    missed: int


class Meter:
    """Measures packets, in memory of a fixed size."""

    def __init__(self):
        self._times = np.zeros((_KEPT, 3))  # when begun, arrival to end, begin to end
        self._count = self._missed = 0

    def add(self, arrived: float, began: float, ended: float) -> None:
        """Adds a packet: when it arrived, and when work on it began and ended."""
        self._times[self._count % _KEPT] = began, ended - arrived, ended - began
        self._count += 1
        self._missed += int(ended - arrived > DEADLINE)

    def figures(self) -> Figures:
        """What was measured; zeros before the first packet."""
        begun, late, busy = self._times[: self._count].T
        if not self._count:
            return Figures(0.0, 0.0, 0.0, 0.0, 0)
        p50, p99, largest = np.quantile(late, [0.5, 0.99, 1.0]).tolist()
        last = (self._count - 1) % _KEPT
        seconds = begun[last] + busy[last] - begun.min()
        return Figures(p50, p99, largest, float(busy.sum() / max(seconds, 1e-9)), self._missed)
