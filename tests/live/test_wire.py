"""The protocol of bins over TCP and standard input."""

import io
import itertools
import socket
import struct

import numpy as np
import pytest

from modessm_jax.live import wire
from modessm_jax.live.packets import Packet, SentenceEnd, Unreadable
from modessm_jax.live.sources import in_background
from tests.docs.pages import blocks
from tests.live.scripted import CHANNELS, bins_of


def events(sent: bytes) -> list:
    return list(wire.read_events(io.BytesIO(sent).read, lambda: 5.0))


def test_what_is_sent_is_what_is_read():
    sent = wire.message(7, bins_of([7, 8])) + wire.end_message() + wire.message(2**40, bins_of([1]))
    first, end, second = events(sent)
    np.testing.assert_array_equal(first.bins, bins_of([7, 8]))
    assert (first.number, first.arrived, end, second.number) == (7, 5.0, SentenceEnd(), 2**40)


def test_the_bytes_of_a_message():
    values = np.array([[1.0, -2.0]])
    header = b"bins" + bytes([8, 0, 0, 0]) + bytes([2, 0, 0, 0]) + bytes([3, 0, 0, 0, 0, 0, 0, 0])
    assert wire.message(3, values) == header + struct.pack("<2f", 1.0, -2.0)


@pytest.mark.parametrize(
    ("values", "channels"), [(b"", 4), (b"1234", 0), (b"12345678", 4), (b"123", 1)]
)
def test_a_message_without_whole_bins_is_passed_over(values, channels):
    bad = struct.pack("<4sIIQ", b"bins", len(values), channels, 0) + values
    found = events(bad + wire.message(1, bins_of([1])))
    assert isinstance(found[0], Unreadable) and f"bins of {channels}" in found[0].reason
    assert isinstance(found[1], Packet)


@pytest.mark.parametrize("cut", [1, 19, 20, 21, 43])
def test_a_stream_that_ends_within_a_message(cut):
    found = events(wire.message(0, bins_of([0])) + wire.message(1, bins_of([1]))[:cut])
    assert len(found) == 2 and isinstance(found[1], Unreadable) and "ended" in found[1].reason


@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/1.1\r\nHost: rig\r\n\r\n",
        struct.pack("<4sIIQ", b"bins", wire.MAX_BYTES + 4, 1, 0) + bytes(64),
    ],
)
def test_another_stream_is_given_up(sent):
    (found,) = events(sent)
    assert isinstance(found, Unreadable) and "no header of a message" in found.reason


def test_rigs_come_and_go():
    listener = wire.Listener(0)
    found = iter(in_background(iter(listener)))
    for number in (3, 0):
        with socket.create_connection(("127.0.0.1", listener.port)) as rig:
            rig.sendall(wire.message(number, bins_of([number])))
            first = next(found)
            assert isinstance(first, Packet) and first.number == number
            rig.sendall(wire.message(number + 1, bins_of([0]))[:30])
        assert isinstance(next(found), Unreadable)
        assert next(found) == SentenceEnd()
    rig = socket.create_connection(("127.0.0.1", listener.port))
    rig.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    rig.sendall(wire.message(9, bins_of([9])))
    assert isinstance(next(found), Packet)
    rig.close()  # resets the connection
    assert isinstance(next(found), Unreadable) and next(found) == SentenceEnd()
    listener.close()
    assert list(found) == []


def test_the_port_is_that_of_this_machine_alone():
    listener = wire.Listener(0)
    assert listener._server.getsockname()[0] == "127.0.0.1"  # pyright: ignore
    with pytest.raises(OSError):
        wire.Listener(listener.port)
    listener.close()


def test_the_channels_of_a_message_are_those_of_its_bins():
    assert wire.message(0, np.zeros((2, CHANNELS)))[8:12] == bytes([CHANNELS, 0, 0, 0])


def test_the_rig_of_the_documentation(monkeypatch):
    (rig,) = (b.text for b in blocks() if b.page.name == "live.md" and b.language == "python")
    listener, connect = wire.Listener(0), socket.create_connection
    found = in_background(iter(listener))
    monkeypatch.setattr(
        socket, "create_connection", lambda _: connect(("127.0.0.1", listener.port))
    )
    exec(rig, {"features": bins_of(range(5))})
    packets = [one for one in itertools.islice(found, 5) if isinstance(one, Packet)]
    assert [packet.number for packet in packets] == [*range(5)]
    np.testing.assert_array_equal(np.concatenate([p.bins for p in packets]), bins_of(range(5)))
    assert next(found) == SentenceEnd()
    listener.close()
    assert list(found) == [SentenceEnd()]
    assert len(rig.strip().splitlines()) == 9
