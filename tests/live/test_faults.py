"""Injected faults: nothing crashes, every bin is accounted for, every sentence is on disk.

The quick form makes a few of each, the slow one 1,000.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from modessm_jax.live.live import Live
from modessm_jax.live.sentences import SHOWN
from modessm_jax.live.server import Server
from modessm_jax.live.sources import in_background
from modessm_jax.live.wire import Listener
from tests.live.clients import open_deaf_page, open_page
from tests.live.rig import FAULTS, Rig
from tests.live.scripted import CHANNELS, ScriptedStream, expected

ROOT = Path(__file__).resolve().parents[2]


class Pages:
    """Browsers that behave badly; each method that is named after a fault makes it."""

    def __init__(self, port: int):
        self._port = port
        self._slow: list[socket.socket] = []

    def page_gone(self) -> None:
        with open_page(self._port) as page:
            page.recv(timeout=20)
            page.socket.shutdown(socket.SHUT_RDWR)

    def page_slow(self) -> None:
        """One that reads nothing; at most three at a time."""
        self._slow.append(open_deaf_page(self._port))
        if len(self._slow) > 3:
            self._slow.pop(0).close()

    def page_strange(self) -> None:
        with pytest.raises(InvalidStatus), open_page(self._port, origin="http://evil.example"):
            pass
        with open_page(self._port) as page:
            page.recv(timeout=20)
            page.send("x" * 100_000)
            with pytest.raises(ConnectionClosed):
                while True:
                    page.recv(timeout=20)

    def close(self) -> None:
        for one in self._slow:
            one.close()


OF_PAGES = ("page_gone", "page_slow", "page_strange")


@pytest.mark.parametrize(
    "faults", [pytest.param(70, id="few"), pytest.param(975, id="many", marks=pytest.mark.slow)]
)
def test_every_bin_is_accounted_for(sentences, faults):
    random = np.random.default_rng(faults)
    listener, stream = Listener(0), ScriptedStream()
    with Server("127.0.0.1", 0, {}, sentences) as server:
        live = Live(stream, CHANNELS, sentences, server.publish, session="a")
        decoding = threading.Thread(target=live.run, args=(in_background(iter(listener)),))
        decoding.start()
        rig, pages = Rig(listener.port, random), Pages(server.port)
        # Each kind at least so many times, in any order.
        kinds = [*FAULTS, *OF_PAGES]
        for kind in random.permutation(np.resize(kinds, faults)):
            for _ in range(random.integers(0, 8)):
                rig.send()
            if random.random() < 0.3:
                rig.end()
            getattr(pages if kind in OF_PAGES else rig, kind)()
        rig.close()
        wait_for(lambda: len(stream.sentences) == len(rig.sentences))
        listener.close()
        decoding.join(20)
        pages.close()
        assert not decoding.is_alive()
    assert live.gapless.counts == rig.counts
    assert len(stream.sentences) == len(rig.sentences) > faults / 10
    for found, sent in zip(stream.sentences, rig.sentences, strict=True):
        np.testing.assert_array_equal(found, sent)
    saved = [json.loads(line) for line in sentences.path.read_text().splitlines()]
    assert [one["text"] for one in saved] == [text_of(len(bins)) for bins in rig.sentences]
    for name, count in vars(rig.counts).items():
        # Messages between sentences belong to none.
        found = sum(one["counts"][name] for one in saved)
        assert found == count or (name in ("unreadable", "strayed", "unfit") and found <= count)


@pytest.mark.parametrize(
    "kills", [pytest.param(1, id="once"), pytest.param(25, id="often", marks=pytest.mark.slow)]
)
def test_a_killed_server_loses_no_finished_sentence(tmp_path, children, kills):
    random, file = np.random.default_rng(kills), tmp_path / "live.jsonl"
    announced: dict[int, str] = {}
    for last in [False] * kills + [True]:
        process, to_rig, to_page = children(file)
        with open_page(to_page) as page:
            known = {
                one["id"]: one["text"] for one in json.loads(page.recv(timeout=20))["sentences"]
            }
            # What was announced before the kill is shown after it.
            first = min(known, default=1)
            assert {
                one: text for one, text in announced.items() if one >= first
            }.items() <= known.items()
            before = len(lines(file))
            assert len(known) == min(SHOWN, before)
            listening = threading.Thread(target=listen, args=(page, announced))
            listening.start()
            rig = Rig(to_rig, random)
            if last:
                send_until_killed(rig, 20)
                wait_for(lambda: len(lines(file)) == before + len(rig.sentences))  # noqa: B023
                os.kill(process, signal.SIGKILL)
            else:
                killing = threading.Timer(random.uniform(0.02, 0.3), os.kill, (process, 9))
                killing.start()
                send_until_killed(rig, 10_000)
                killing.join()
            listening.join(20)
        saved = {one["id"]: one["text"] for one in lines(file)}
        assert announced.items() <= saved.items()
        assert [*saved] == [*range(1, len(saved) + 1)]
    assert len(announced) > kills


def send_until_killed(rig: Rig, packets: int) -> None:
    """Sends so many packets, in sentences, or as many as it can."""
    with contextlib.suppress(OSError):
        for _ in range(packets):
            rig.send()
            if rig.random.random() < 0.2:
                rig.end()
            time.sleep(0.001)
    rig.close()


def wait_for(condition) -> None:
    for _ in range(2000):
        if condition():
            return
        time.sleep(0.02)
    pytest.fail("it did not come about in 40 s")


def text_of(bins: int) -> str:
    decoded = expected(bins)
    return " ".join(decoded.words or decoded.phonemes)


def lines(file: Path) -> list[dict]:
    """The whole lines of a file."""
    return [json.loads(line) for line in file.read_bytes().splitlines(True) if line.endswith(b"\n")]


def listen(page, announced: dict[int, str]) -> None:
    with contextlib.suppress(ConnectionClosed):
        for received in page:
            message = json.loads(received)
            if message["type"] == "sentence":
                announced[message["id"]] = message["text"]


@pytest.fixture
def children():
    """Begins live decoders with a file of sentences; gives the process and its two ports."""
    command = [sys.executable, "-m", "tests.live.child"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    begun: list[int] = []
    with subprocess.Popen(command, cwd=ROOT, **pipes) as process:  # pyright: ignore

        def begin(file: Path) -> list[int]:
            print(file, file=process.stdin, flush=True)
            assert process.stdout is not None
            numbers = [int(number) for number in process.stdout.readline().split()]
            begun.append(numbers[0])
            return numbers

        yield begin
        with contextlib.suppress(ProcessLookupError):  # if the test has failed before it did
            os.kill(begun[-1], signal.SIGKILL)
