"""Replay keeps its pace, and samples of the Lab Streaming Layer are numbered by their times."""

import itertools
import os
import subprocess
import sys
import types

import numpy as np
import pytest

from modessm_jax.data.recordings import read_recordings
from modessm_jax.live.packets import Packet, SentenceEnd
from modessm_jax.live.sources import (
    AT_ONCE,
    PAUSE,
    in_background,
    lab_streaming_layer,
    numbered,
    replay,
)
from tests.data.layout import write_split

LENGTHS = [60, 7]


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    write_split(root, "a", "val", LENGTHS)
    return read_recordings(root, "val")


class Clock:
    """A time that passes only in sleep, and as a decoder works."""

    def __init__(self):
        self.now = 50.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def played(recordings, speed: float, work: float = 0.0) -> list[tuple[float, Packet | SentenceEnd]]:
    """The events, each with the time at which it was had; a decoder works on each packet."""
    clock, found = Clock(), []
    for event in replay(recordings, speed, clock=clock, sleep=clock.sleep):
        found.append((clock.now - 50.0, event))
        clock.now += work
    return found


def trials(found) -> list[np.ndarray]:
    """The bins of each sentence, which are in a row."""
    made, bins = [], []
    for _, event in found:
        if isinstance(event, SentenceEnd):
            made.append(np.concatenate(bins))
            bins = []
        else:
            assert event.number == sum(map(len, bins))
            bins.append(event.bins)
    return made


@pytest.mark.parametrize(
    ("speed", "work"), [(1.0, 0.0), (1.0, 0.07), (3.5, 0.0), (float("inf"), 1.0)]
)
def test_all_bins_are_played(recordings, speed, work):
    found = played(recordings, speed, work)
    for index, bins in enumerate(trials(found)):
        np.testing.assert_array_equal(bins, recordings.features(index))
    ends = [event for _, event in found if isinstance(event, SentenceEnd)]
    assert ends == [SentenceEnd("sentence 0"), SentenceEnd("sentence 1")]


def test_each_bin_comes_when_it_is_over(recordings):
    found = played(recordings, 1.0)
    times = [(time, event.arrived - 50) for time, event in found if isinstance(event, Packet)]
    due = [0.02 * (k + 1) for k in range(60)]
    due += [due[-1] + PAUSE + 0.02 * (k + 1) for k in range(7)]
    np.testing.assert_allclose(times, np.stack([due, due], axis=1), atol=1e-6)


def test_a_slow_decoder_gets_what_has_come_meanwhile(recordings):
    found = [(t, event) for t, event in played(recordings, 1.0, 0.07) if isinstance(event, Packet)]
    assert {len(event.bins) for _, event in found[1:17]} <= {3, 4}
    assert all(0 <= t - (event.arrived - 50) < 0.02 + 1e-6 for t, event in found)


def test_a_faster_replay_takes_less_time(recordings):
    assert played(recordings, 10.0)[-1][0] == pytest.approx(played(recordings, 1.0)[-1][0] / 10)
    found = played(recordings, float("inf"))
    assert found[-1][0] == 0.0
    packets = [len(event.bins) for _, event in found if isinstance(event, Packet)]
    assert packets == [AT_ONCE, 10, 7]


def test_samples_are_numbered_by_their_times():
    chunks = iter(
        [
            ([[1.0], [2.0]], [10.0, 10.0201]),
            ([[3.0]], [10.0399]),
            ([[6.0], [7.0]], [10.1, 10.12]),  # two were lost
            ([[8.0]], [10.121]),  # a time stamp that is off; it is another bin all the same
            ([[207.0]], [14.121]),
        ]
    )
    found = list(itertools.islice(numbered(lambda: next(chunks)), 7))
    assert [one.number for one in found] == [0, 1, 2, 5, 6, 7, 206]
    assert [one.bins.item() for one in found] == [1, 2, 3, 6, 7, 8, 207]


def test_jitter_and_drift_lose_nothing():
    random = np.random.default_rng(0)
    stamps = 5.0 + 0.02 * 1.001 * np.arange(3000) + random.uniform(-0.006, 0.006, 3000)
    chunks = iter([([[0.0]], [stamp]) for stamp in stamps])
    found = itertools.islice(numbered(lambda: next(chunks)), 3000)
    assert [one.number for one in found] == [*range(3000)]


def fake_pylsl(monkeypatch, found):
    module = types.ModuleType("pylsl")
    module.resolve_byprop = lambda *_, **__: found  # pyright: ignore
    monkeypatch.setitem(sys.modules, "pylsl", module)


LSL = """
import itertools, sys, time
import pylsl
from modessm_jax.live.sources import lab_streaming_layer

if sys.argv[1] == "rig":
    outlet = pylsl.StreamOutlet(pylsl.StreamInfo("rig", "bins", 6, 50.0, "float32", "of a test"))
    outlet.wait_for_consumers(60)
    begun = pylsl.local_clock()
    for number in [*range(30), *range(33, 50)]:
        time.sleep(max(0, begun + 0.02 * number - pylsl.local_clock()))
        outlet.push_sample([float(number)] * 6, begun + 0.02 * number)
    time.sleep(5)
else:
    for packet in itertools.islice(lab_streaming_layer("rig", 60), 47):
        assert packet.bins.shape == (1, 6)
        print(packet.number, int(packet.bins[0, 0]))
"""


@pytest.mark.slow
def test_bins_of_a_real_stream(tmp_path):
    pytest.importorskip("pylsl", reason="pip install 'modessm_jax[live]'")
    config = tmp_path / "lsl_api.cfg"  # nothing is sent to other machines
    config.write_text(
        "[ports]\nIPv6 = disable\n[multicast]\nResolveScope = machine\n"
        "AddressesOverride = {127.0.0.1}\n[lab]\nKnownPeers = {127.0.0.1}\n"
    )
    environment = os.environ | {"LSLAPICFG": str(config), "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", LSL]
    with subprocess.Popen([*command, "rig"], env=environment) as rig:
        said = subprocess.run(
            [*command, "decoder"], env=environment, capture_output=True, text=True, check=True
        )
        rig.kill()
    found = [tuple(map(int, line.split())) for line in said.stdout.splitlines()]
    assert found == [(number, number) for number in [*range(30), *range(33, 50)]]


def test_a_stream_that_is_not_there_is_named(monkeypatch):
    fake_pylsl(monkeypatch, [])
    with pytest.raises(ValueError, match="no LSL stream 'rig' in 10 s"):
        next(lab_streaming_layer("rig"))


def test_a_stream_of_another_rate_is_refused(monkeypatch):
    fake_pylsl(monkeypatch, [types.SimpleNamespace(nominal_srate=lambda: 100.0)])
    with pytest.raises(ValueError, match="'rig' has 100 samples a second, not 50"):
        next(lab_streaming_layer("rig"))


def test_without_pylsl_its_installation_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "pylsl", None)
    with pytest.raises(ImportError, match=r"pip install 'modessm_jax\[live\]'"):
        next(lab_streaming_layer("rig"))


def test_an_error_in_the_background_is_raised_where_events_are_taken():
    def events():
        yield SentenceEnd()
        raise OSError("gone")

    found = in_background(events())
    assert next(found) == SentenceEnd()
    with pytest.raises(OSError, match="gone"):
        next(found)
