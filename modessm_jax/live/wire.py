"""Bins over TCP or standard input: a stream of messages, each with its length before it.

A message is a header of 20 bytes, little-endian, and then the values:

    bytes   type      what
    0-3     4 bytes   the letters "bins"
    4-7     uint32    bytes of values that follow, 4 * channels * bins
    8-11    uint32    channels in a bin
    12-19   uint64    number of the first bin
    20-     float32   the values, bin by bin

A header with no channels and no values is the end of a sentence. Numbers grow by one with each bin;
they show what was lost, and may begin anywhere. Nothing is sent back.
"""

import socket
import struct
import time
from collections.abc import Callable, Iterator

import numpy as np
from jaxtyping import Float

from modessm_jax.live.packets import Event, Packet, SentenceEnd, Unreadable

MAX_BYTES = 2**24  # of the values of one message; 20 s of 512 channels take 2 MB

_HEADER = struct.Struct("<4sIIQ")
_WORD = b"bins"


def message(number: int, bins: Float[np.ndarray, "bins channels"]) -> bytes:
    """The message of some bins, the first of which has this number."""
    values = np.ascontiguousarray(bins, "<f4").tobytes()
    return _HEADER.pack(_WORD, len(values), bins.shape[1], number) + values


def end_message() -> bytes:
    """The message that ends a sentence."""
    return _HEADER.pack(_WORD, 0, 0, 0)


def read_events(
    read: Callable[[int], bytes], clock: Callable[[], float] = time.monotonic
) -> Iterator[Event]:
    """The events of a stream of messages, until it ends or is no such stream.

    Args:
        read: gives so many bytes, fewer only where the stream ends.
        clock: the time, in seconds, by which packets arrive.
    """
    while header := read(_HEADER.size):
        if len(header) < _HEADER.size:
            yield Unreadable("the stream ended within a header")
            return
        word, size, channels, number = _HEADER.unpack(header)
        if word != _WORD or size > MAX_BYTES:
            yield Unreadable(f"no header of a message: {header[:8]!r}; the stream is given up")
            return
        values = read(size)
        if len(values) < size:
            yield Unreadable(f"the stream ended after {len(values)} of {size} bytes of values")
            return
        if not size and not channels:
            yield SentenceEnd()
        elif not size or not channels or size % (4 * channels):
            yield Unreadable(f"{size} bytes are not whole bins of {channels} channels")
        else:
            bins = np.frombuffer(values, "<f4").reshape(-1, channels)
            yield Packet(number, bins, clock())


class Listener:
    """Takes the bins of one rig at a time, over TCP from this machine alone.

    A rig that leaves ends the sentence; then the next one is waited for.

    Args:
        port: to listen on; 0 for any that is free.

    Attributes:
        port: that it listens on.

    Raises:
        OSError: the port is in use.
    """

    def __init__(self, port: int):
        self._server = socket.create_server(("127.0.0.1", port), backlog=1)
        self.port: int = self._server.getsockname()[1]

    def __iter__(self) -> Iterator[Event]:
        while True:
            try:
                connection, _ = self._server.accept()
            except OSError:  # closed
                return
            with connection, connection.makefile("rb") as stream:
                try:
                    yield from read_events(stream.read)
                except OSError as error:  # such as a connection reset
                    yield Unreadable(f"the connection broke: {error}")
            yield SentenceEnd()

    def close(self) -> None:
        """Listens no longer; iteration ends with the present rig."""
        # `close` alone would not wake a thread that waits in `accept`.
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
