"""Asked to end: once, and twice."""

import os
import signal
import socket
import subprocess
import sys
import time

from benchmarks.faults.report import Row
from benchmarks.faults.victim import ENVIRONMENT, Bench, Victim, ending, fingerprint
from modessm_jax.training.preemption import EXIT_STATUS

# Two processes that do nothing but ask each other at every step whether one was told to end.
_OF_TWO = """
import sys, time
import jax
from modessm_jax.training.preemption import EXIT_STATUS, Preemption

jax.distributed.initialize(sys.argv[1], 2, int(sys.argv[2]))
with Preemption() as preemption:
    for step in range(100_000):
        if preemption.reached(step):
            print(f"ended after step {step}", flush=True)
            sys.exit(EXIT_STATUS)
        if step == 3:
            print("ready", flush=True)
        time.sleep(0.01)
"""


def terminated(bench: Bench) -> Row:
    """SIGTERM, as the queues of clusters send it."""
    return _once(bench, signal.SIGTERM)


def interrupted(bench: Bench) -> Row:
    """SIGINT, as Ctrl-C sends it."""
    return _once(bench, signal.SIGINT)


def _once(bench: Bench, number: signal.Signals) -> Row:
    """After some steps the run is asked to end, and then run again."""
    workdir = bench.workdir(number.name)
    victim = Victim(bench.data, workdir)
    asked = victim.wait_until(lambda: (victim.step or 0) >= 5)
    victim.signal(number)
    status = victim.end()
    orphans = victim.survivors()
    saved = "and saved; run again to go on" in victim.said
    again = Victim(bench.data, workdir)
    again.must_end_with(0)
    same = fingerprint(workdir) == bench.fingerprint
    words = "saved at the next step" if saved else "NOT saved"
    return Row(
        number.name,
        1,
        f"{words}, exit status {status}; run again: {ending(same)}",
        asked and saved and status == EXIT_STATUS and same and not orphans,
    )


def twice(bench: Bench) -> Row:
    """Asked again, with the other signal, while it is busy before its first step."""
    first, second = signal.SIGTERM, signal.SIGINT
    workdir = bench.workdir("twice")
    victim = Victim(bench.data, workdir)
    victim.wait_until_said("val: ")
    victim.signal(first)
    heard = victim.wait_until_said(f"{first.name}: saving")
    start = time.monotonic()
    victim.signal(second)
    status = victim.end()
    seconds = time.monotonic() - start
    Victim(bench.data, workdir).must_end_with(0)
    same = fingerprint(workdir) == bench.fingerprint
    return Row(
        f"{first.name}, then {second.name}",
        1,
        f"exit status {status} {seconds:.1f} s after the second; run again: {ending(same)}",
        heard and status == 128 + second and seconds < 5.0 and same,
    )


def one_of_two(bench: Bench) -> Row:
    """Of two processes under `jax.distributed`, only the second is told."""
    del bench
    with socket.create_server(("localhost", 0)) as server:
        address = f"localhost:{server.getsockname()[1]}"
    pair = [
        subprocess.Popen(
            [sys.executable, "-c", _OF_TWO, address, str(number)],
            env={**ENVIRONMENT, **os.environ},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        for number in range(2)
    ]
    streams = [process.stdout for process in pair if process.stdout is not None]
    ready = ["ready\n" in iter(stream.readline, "") for stream in streams]
    pair[1].send_signal(signal.SIGTERM)
    said = [stream.read().splitlines()[-1:] for stream in streams]
    statuses = [process.wait() for process in pair]
    agreed = said[0] == said[1] and bool(said[0]) and said[0][0].startswith("ended after step")
    return Row(
        "SIGTERM to one of two processes under jax.distributed",
        1,
        f"exit statuses {statuses}, {'at the same step' if agreed else 'NOT at the same step'}; "
        "the question alone, not a training run",
        all(ready) and agreed and statuses == [EXIT_STATUS] * 2,
    )
