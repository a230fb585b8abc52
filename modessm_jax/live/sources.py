"""Where bins come from: a recording played again, or a stream of the Lab Streaming Layer.

A source is an iterator of events (`packets.Event`). That of TCP and standard input is in `wire.py`.
"""

import queue
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from modessm_jax.data.recordings import Recordings
from modessm_jax.data.validation import BIN_SECONDS
from modessm_jax.live.packets import Event, Packet, SentenceEnd

AT_ONCE = 50  # the most bins in a packet of a replay
PAUSE = 1.0  # seconds between the trials of a replay
_DRIFT = 0.02  # share of a time stamp's error by which the others are shifted
_QUEUED = 1000  # packets that wait for the decoder before the source has to


def replay(
    recordings: Recordings,
    speed: float = 1.0,
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[Event]:
    """Plays the trials of a split again, at the pace they were recorded or at a multiple of it.

    A bin is there when its 20 ms are over. One that the decoder was too slow for comes with those
    after it, in one packet. A sentence ends after each trial; the next begins a second later.

    Args:
        recordings: of one split.
        speed: factor of the pace, above 0; infinity for all bins at once.
        clock: the time, in seconds.
        sleep: waits for so many seconds.

    Raises:
        ValueError: the speed is not above 0.
    """
    if not speed > 0:
        raise ValueError(f"speed = {speed:g}: give a factor of the pace, above 0")
    began, pause = clock(), 0.0
    at_once = int(min(max(1.0, speed), AT_ONCE))  # as many as there are in 20 ms
    for index, trial in enumerate(recordings.trials):
        began, features = max(clock(), began + pause / speed), recordings.features(index)
        due = began + BIN_SECONDS / speed * np.arange(1, len(features) + 1)
        place = 0
        while place < len(features):
            wait = due[min(place + at_once, len(due)) - 1] - clock()
            if wait > 0:
                sleep(wait)
            end = min(int(np.searchsorted(due, clock(), side="right")), place + AT_ONCE)
            if end > place:
                yield Packet(place, features[place:end], float(due[end - 1]))
                place = end
        yield SentenceEnd(trial.sentence)
        began, pause = float(due[-1]), PAUSE


def lab_streaming_layer(name: str, wait: float = 10.0) -> Iterator[Event]:
    """Bins of a stream of the Lab Streaming Layer: float32 samples of one bin each, at 50 Hz.

    Bins are numbered by their time stamps, which show what was lost.

    Args:
        name: of the stream.
        wait: seconds in which it has to be found.

    Raises:
        ImportError: `pylsl` is not installed.
        ValueError: there is no such stream, or it is not one of bins.
    """
    try:
        import pylsl
    except (ImportError, RuntimeError) as error:  # the latter where it finds no liblsl
        raise ImportError(
            f"the Lab Streaming Layer needs pylsl: pip install 'modessm_jax[live]' ({error})"
        ) from error
    found = pylsl.resolve_byprop("name", name, timeout=wait)
    if not found:
        raise ValueError(f"no LSL stream {name!r} in {wait:g} s; start it, or give its name")
    rate, period = found[0].nominal_srate(), BIN_SECONDS
    if abs(rate * period - 1) > 0.01:
        problem = f"LSL stream {name!r} has {rate:g} samples a second, not {1 / period:g}"
        raise ValueError(f"{problem}; send one sample for each bin of {1000 * period:g} ms")
    # Not `proc_dejitter`: it takes a short gap for jitter, and lost bins would not be seen.
    inlet = pylsl.StreamInlet(found[0], max_buflen=10, processing_flags=pylsl.proc_clocksync)
    yield from numbered(lambda: _pull(inlet))


def numbered(pull: Callable[[], tuple[Any, Any]]) -> Iterator[Packet]:
    """Packets of samples, numbered by their time stamps.

    Stamps may be 6 ms early or late, and the clock may drift. Two samples are never one bin.

    Args:
        pull: waits for samples; gives those there are, and their times in seconds.
    """
    number, origin = -1, None
    while True:
        samples, stamps = pull()
        arrived = time.monotonic()
        for sample, stamp in zip(samples, stamps, strict=True):
            origin = stamp if origin is None else origin
            place = round((stamp - origin) / BIN_SECONDS)
            origin += _DRIFT * (stamp - origin - place * BIN_SECONDS)
            number = max(number + 1, place)
            yield Packet(number, np.asarray(sample, np.float32)[None], arrived)


def _pull(inlet: Any) -> tuple[list[Any], list[float]]:
    """The samples that have arrived; waits for one."""
    first, stamp = inlet.pull_sample()
    samples, stamps = inlet.pull_chunk(timeout=0.0)
    return [first, *samples], [stamp, *stamps]


def in_background(events: Iterator[Event]) -> Iterator[Event]:
    """The events of an iterator that runs in a thread of its own, so that arrivals are timed.

    While the decoder works, packets are taken from the network and wait here. An error in the
    thread is raised where the events are taken.
    """
    waiting: queue.Queue[Event | BaseException | None] = queue.Queue(_QUEUED)

    def run() -> None:
        try:
            for event in events:
                waiting.put(event)
            waiting.put(None)
        except BaseException as error:
            waiting.put(error)

    threading.Thread(target=run, name="source", daemon=True).start()
    while (event := waiting.get()) is not None:
        if isinstance(event, BaseException):
            raise event
        yield event
