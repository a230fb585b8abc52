"""Numbered packets of bins, made one gapless sequence by rule; every bin is counted.

A bin is 20 ms of features. What a source gives may lack bins, repeat them, or bring them too late;
channels may be silent, and their number may change. The rules:

- A lost bin is passed on as NaN, and so is a value that is not finite. A stream takes NaN as it
  does in a recording: it counts for nothing in the normalisation and becomes 0, the mean.
- Nothing is waited for. A bin that comes after its successors is late and left out, as one that
  comes twice is.
- A packet of another channel count is left out; its bins are lost unless they are sent again.
- A packet more than `MAX_JUMP` bins away strays and is left out. If the next one continues it, the
  source has begun to count anew, or was away for long: the sentence ends, and another begins.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32

MAX_JUMP = 50  # bins, 1 s
_REMEMBERED = 1000  # bins


@dataclass(frozen=True, eq=False)
class Packet:
    """Bins in a row, as a source gives them.

    Attributes:
        number: of the first bin; the source counts its bins, from any number on.
        bins: floats [bins, channels].
        arrived: when the last of them was there, in seconds of `time.monotonic`.
    """

    number: int
    bins: Float[np.ndarray, "bins channels"]
    arrived: float


@dataclass(frozen=True)
class SentenceEnd:
    """The end of a sentence, where the source says so; with what was to be said, if known."""

    reference: str | None = None


@dataclass(frozen=True)
class Unreadable:
    """Something that came from a source and is no packet."""

    reason: str


Event = Packet | SentenceEnd | Unreadable


@dataclass
class Counts:
    """What became of all bins. Those received are used, doubled, late, strayed or unfit.

    Attributes:
        used: passed on to the decoder.
        lost: passed on as NaN.
        doubled: came again.
        late: came after they had been passed on as lost.
        strayed: far from the others by their number.
        unfit: of another channel count.
        unreadable: messages, not bins, that were no packets.
        jumps: times at which the source began to count anew.
        missing_values: of used bins, not finite.
    """

    used: int = 0
    lost: int = 0
    doubled: int = 0
    late: int = 0
    strayed: int = 0
    unfit: int = 0
    unreadable: int = 0
    jumps: int = 0
    missing_values: int = 0

    @property
    def received(self) -> int:
        """Bins that came."""
        return self.used + self.doubled + self.late + self.strayed + self.unfit


class Taken(NamedTuple):
    """What is to be passed on; where `jumped`, nothing.

    The sentence has ended then, and the packet is to be given again as the first of the next.
    """

    bins: Float32[np.ndarray, "bins channels"]
    jumped: bool


class Gapless:
    """Makes one sequence of bins of the packets of a source.

    Args:
        channels: in a bin.

    Attributes:
        counts: since it was made.
        silent: the channels without a finite value in the last bin used.
    """

    def __init__(self, channels: int):
        self.counts = Counts()
        self.silent: Bool[np.ndarray, "channels"] = np.zeros(channels, bool)
        self._channels = channels
        self.restart()

    def restart(self) -> None:
        """Begins a sentence: the next packet is its first, whatever its number."""
        self._next: int | None = None  # number of the bin that is due
        self._lost: set[int] = set()  # numbers
        self._stray_next: int | None = None  # where the last packet ended, if it strayed

    def take(self, packet: Packet) -> Taken:
        """The bins to pass on for a packet: none, some or all of its own, after lost ones."""
        bins, counts = packet.bins, self.counts
        nothing = np.zeros((0, self._channels), np.float32)
        if bins.ndim != 2 or bins.shape[1] != self._channels:
            counts.unfit += len(bins)
            return Taken(nothing, False)
        start, end = packet.number, packet.number + len(bins)
        if self._next is not None and not (
            start <= self._next + MAX_JUMP and end >= self._next - MAX_JUMP
        ):
            if start != self._stray_next:
                counts.strayed += len(bins)
                self._stray_next = end
                return Taken(nothing, False)
            counts.jumps += 1
            self.restart()
            return Taken(nothing, True)
        self._stray_next = None
        due = start if self._next is None else self._next
        if start > due:
            counts.lost += start - due
            # Those long ago are not remembered: the memory of a stream without end is bounded.
            self._lost = {n for n in self._lost if n > due - _REMEMBERED} | {*range(due, start)}
        late = self._lost.intersection(range(start, min(end, due)))
        self._lost -= late
        counts.late += len(late)
        counts.doubled += max(0, min(end, due) - start) - len(late)
        self._next = max(due, end)
        return Taken(self._passed(bins[max(0, due - start) :], start - due), False)

    def _passed(self, bins: np.ndarray, lost: int) -> np.ndarray:
        """Used bins after lost ones."""
        with np.errstate(over="ignore"):
            values = bins.astype(np.float32)
        finite = np.isfinite(values)
        values[~finite] = np.nan
        self.counts.used += len(values)
        self.counts.missing_values += int((~finite).sum())
        if len(values):
            self.silent = ~finite[-1]
        if lost <= 0:
            return values
        return np.concatenate([np.full((lost, self._channels), np.nan, np.float32), values])
