"""A rig that sends bins over TCP with faults, and knows what has to become of each of them."""

import contextlib
import socket
import struct
from dataclasses import asdict, dataclass, field

import numpy as np

from modessm_jax.live.packets import MAX_JUMP, Counts
from modessm_jax.live.wire import end_message, message
from tests.live.scripted import CHANNELS, bins_of

MISSING = np.full(CHANNELS, np.nan, np.float32)


@dataclass
class Rig:
    """Sends to a port; each method that is named after a fault makes it.

    Attributes:
        counts: what the receiver has to have counted.
        sentences: the bins it has to have passed on, of each sentence that has ended.
    """

    port: int
    random: np.random.Generator
    counts: Counts = field(default_factory=Counts)
    sentences: list[np.ndarray] = field(default_factory=list)

    def __post_init__(self):
        self._connect()

    def _connect(self, number: int = 0) -> None:
        self._socket = socket.create_connection(("127.0.0.1", self.port))
        self._number, self._rows = number, []

    def _some(self, most: int = 5) -> int:
        return int(self.random.integers(1, most + 1))

    def send(self, bins: int | None = None) -> None:
        """A packet in its turn."""
        numbers = range(self._number, self._number + (bins or self._some()))
        self._socket.sendall(message(self._number, bins_of(numbers)))
        self._rows += list(bins_of(numbers))
        self._number = numbers.stop
        self.counts.used += len(numbers)

    def end(self) -> None:
        """The end of a sentence; the next begins with any number."""
        self._socket.sendall(end_message())
        self._ended(int(self.random.integers(0, 10_000)))

    def _ended(self, number: int) -> None:
        if self._rows:
            self.sentences.append(np.array(self._rows))
        self._number, self._rows = number, []

    def _skip(self, bins: int) -> range:
        self.send()  # the first packet of a sentence has nothing before it that could be lost
        lost = range(self._number, self._number + bins)
        self._number = lost.stop
        self._rows += [MISSING] * bins
        self.counts.lost += bins
        return lost

    def lost(self) -> None:
        self._skip(self._some(MAX_JUMP))
        self.send()

    def doubled(self) -> None:
        self.send()
        again = range(self._number - self._some(2), self._number)
        again = range(max(again.start, self._number - len(self._rows)), again.stop)
        self._socket.sendall(message(again.start, bins_of(again)))
        self.counts.doubled += len(again)

    def late(self) -> None:
        lost = self._skip(self._some())
        self.send(1)
        self._socket.sendall(message(lost.start, bins_of(lost)))
        self.counts.late += len(lost)

    def nan(self) -> None:
        bins = bins_of([self._number])
        dead = self.random.permutation(CHANNELS)[: self._some(CHANNELS)]
        bins[0, dead] = self.random.choice([np.nan, np.inf, -np.inf])
        self._socket.sendall(message(self._number, bins))
        self._rows.append(np.where(np.isfinite(bins[0]), bins[0], np.float32(np.nan)))
        self._number += 1
        self.counts.used += 1
        self.counts.missing_values += len(dead)

    def other_channels(self) -> None:
        lost = self._skip(self._some())
        channels = int(self.random.choice([1, CHANNELS - 1, CHANNELS + 1, 2 * CHANNELS]))
        self._socket.sendall(message(lost.start, np.ones((len(lost), channels))))
        self.counts.unfit += len(lost)
        self.send()

    def short(self) -> None:
        values = bytes(4 * CHANNELS * 2 - self._some(4 * CHANNELS - 1))
        header = struct.pack("<4sIIQ", b"bins", len(values), CHANNELS, self._number)
        self._socket.sendall(header + values)
        self.counts.unreadable += 1

    def stray(self) -> None:
        self.send()
        number = self._number + MAX_JUMP + 1 + int(self.random.integers(0, 2**40))
        self._socket.sendall(message(number, np.ones((2, CHANNELS))))
        self.counts.strayed += 2
        self.send()

    def counts_anew(self) -> None:
        self.send()
        number = self._number + 10 * MAX_JUMP
        self._socket.sendall(message(number, np.ones((1, CHANNELS))))
        self.counts.strayed += 1
        self.counts.jumps += 1
        self._ended(number + 1)
        self.send()

    def gone(self) -> None:
        self.send()
        self._socket.close()
        self._ended(0)
        self._connect(self._some(1000))

    def cut(self) -> None:
        self.send()
        whole = message(self._number, bins_of([self._number]))
        self._socket.sendall(whole[: self._some(len(whole) - 1)])
        self.counts.unreadable += 1
        self._socket.close()
        self._ended(0)
        self._connect()

    def noise(self) -> None:
        self.send()
        self._socket.sendall(b"\xff" * 40)
        self.counts.unreadable += 1
        # The receiver closes; what it has not read by then is lost, and so nothing more is sent.
        with contextlib.suppress(ConnectionResetError):
            assert self._socket.recv(1) == b""
        self._socket.close()
        self._ended(0)
        self._connect()

    def close(self) -> None:
        """Leaves, which ends the sentence."""
        self._socket.close()
        self._ended(0)

    def kinds(self) -> dict[str, int]:
        """The counts that are not 0."""
        return {name: count for name, count in asdict(self.counts).items() if count}


FAULTS = (
    "lost", "doubled", "late", "nan", "other_channels", "short", "stray", "counts_anew", "gone",
    "cut", "noise",
)  # fmt: skip
