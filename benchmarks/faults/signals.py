"""SIGTERM and SIGINT: once, twice, to all processes of a run, and to one of two."""

import json
import random
import signal
import socket
import time
from pathlib import Path

from benchmarks.faults.config import STEPS
from benchmarks.faults.report import Row
from benchmarks.faults.victim import Bench, Victim, ending, fingerprint, prepare
from modessm_jax.runtime.preemption import EXIT_STATUS

TIMES = 3  # a signal is sent to all processes of a run


def terminated(bench: Bench) -> Row:
    """SIGTERM, as the queues of clusters send it."""
    return _once(bench, signal.SIGTERM)


def interrupted(bench: Bench) -> Row:
    """SIGINT, as Ctrl-C sends it."""
    return _once(bench, signal.SIGINT)


def _once(bench: Bench, number: signal.Signals) -> Row:
    """The signal is sent after some steps; then the run is resumed."""
    workdir = bench.workdir(number.name)
    victim = Victim(bench.data, workdir)
    reached = victim.wait_until(lambda: (victim.step or 0) >= 5)
    victim.signal(number)
    status = victim.end()
    orphans = victim.survivors()
    saved = "and saved; run again to go on" in victim.output
    again = Victim(bench.data, workdir)
    again.must_end_with(0)
    same = fingerprint(workdir) == bench.fingerprint
    outcome = "saved at the next step" if saved else "NOT saved"
    return Row(
        number.name,
        1,
        f"{outcome}, exit status {status}; run again: {ending(same)}",
        reached and saved and status == EXIT_STATUS and same and not orphans,
    )


def twice(bench: Bench) -> Row:
    """A second signal, the other one, is sent while the run prepares its first step."""
    first, second = signal.SIGTERM, signal.SIGINT
    workdir = bench.workdir("twice")
    victim = Victim(bench.data, workdir)
    victim.wait_until_printed("val: ")
    victim.signal(first)
    printed = victim.wait_until_printed(f"{first.name}: saving")
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
        printed and status == 128 + second and seconds < 5.0 and same,
    )


def terminated_with_workers(bench: Bench) -> Row:
    """SIGTERM, as a service manager sends it."""
    return _to_all(bench, signal.SIGTERM)


def interrupted_with_workers(bench: Bench) -> Row:
    """SIGINT, as a terminal sends it."""
    return _to_all(bench, signal.SIGINT)


def _to_all(bench: Bench, number: signal.Signals) -> Row:
    """The loader's workers get it as well, at any instant after the run handles signals."""
    instants = random.Random(int(number))
    workdir = bench.workdir(f"{number.name}_to_all")
    statuses, saved, orphans = [], 0, 0
    for begun in range(0, TIMES * STEPS, STEPS):
        victim = Victim(bench.data, workdir)
        victim.wait_until_printed("train: ")
        step = begun + instants.randint(0, STEPS)
        if victim.wait_until(lambda victim=victim, step=step: (victim.step or 0) >= step):
            time.sleep(instants.uniform(0.0, 1.0))
            victim.signal_all(number)
        statuses.append(victim.end())
        saved += "and saved; run again to go on" in victim.output
        orphans += victim.survivors()
    Victim(bench.data, workdir).must_end_with(0)
    same = fingerprint(workdir) == bench.fingerprint
    return Row(
        f"{number.name} to the process and its loader's workers",
        TIMES,
        f"{saved} saved, exit statuses {statuses}; run again each time: {ending(same)}",
        saved == TIMES and statuses == [EXIT_STATUS] * TIMES and same and not orphans,
    )


def killed_on_resuming(bench: Bench) -> Row:
    """A signal arrives where an evaluation is due; the next process is killed after evaluating."""
    workdir = bench.workdir("on_resuming")
    # It gets the signal while it saves after step 2, so it ends after step 3.
    before = Victim(bench.data, workdir)
    before.wait_until(lambda: before.step == 2)
    before.signal(signal.SIGTERM)
    before.must_end_with(EXIT_STATUS)
    victim = Victim(bench.data, workdir)
    victim.wait_until_printed("resuming after step 3")
    time.sleep(1.0)  # starting its worker and loading its program takes longer
    victim.signal(signal.SIGTERM)
    status = victim.end()
    at_evaluation = "ended early after step 4," in victim.output
    kills = 0
    for seconds in (0.0, 0.1, 0.3):
        again = Victim(bench.data, workdir)
        resumed = again.wait_until_printed("resuming after step 4")
        if resumed and again.wait_until(lambda: evaluated(workdir, 4)):
            time.sleep(seconds)
            again.signal(signal.SIGKILL)
        kills += again.end() == -signal.SIGKILL
        again.survivors()
    Victim(bench.data, workdir).must_end_with(0)
    lines = (workdir / "metrics.jsonl").read_bytes()
    logged = lines == (bench.undisturbed / "metrics.jsonl").read_bytes()
    same = fingerprint(workdir) == bench.fingerprint
    return Row(
        "SIGTERM where an evaluation is due, SIGKILL after the next process has evaluated",
        kills,
        f"exit status {status}{'' if at_evaluation else ', NOT where it is due'}; "
        f"metrics {'identical' if logged else 'DIFFERENT'}, {ending(same)}",
        status == EXIT_STATUS and at_evaluation and kills == 3 and logged and same,
    )


def evaluated(workdir: Path, step: int) -> bool:
    """Whether the metrics have an evaluation after so many steps."""
    start = json.dumps({"step": step, "kind": "evaluation"})[:-1]
    return start in (workdir / "metrics.jsonl").read_text(encoding="utf-8")


def one_of_two(bench: Bench) -> Row:
    """Of two processes that make one run under `jax.distributed`, only the second gets a signal."""
    whole = bench.directory / "two"
    if not (whole / "results.json").exists():  # of several devices: other programs, compiled here
        for process in _two(bench, whole):
            process.must_end_with(0)
    expected = fingerprint(whole)
    workdir = prepare(whole, bench.directory / "one_of_two")
    first, second = _two(bench, workdir)
    reached = first.wait_until(lambda: (first.step or 0) >= 5)  # the second prints nothing
    second.signal(signal.SIGTERM)
    statuses = [first.end(), second.end()]
    last = [process.output.splitlines()[-1:] for process in (first, second)]
    agreed = last[0] == last[1] and "and saved; run again to go on" in "".join(last[0])
    for process in _two(bench, workdir):
        process.must_end_with(0)
    same = fingerprint(workdir) == expected
    return Row(
        "SIGTERM to one of two processes that make a run under jax.distributed",
        1,
        f"{'both saved after the same step' if agreed else 'NOT both saved'}, exit statuses "
        f"{statuses}; run again: {ending(same)} to an undisturbed run of two processes",
        reached and agreed and statuses == [EXIT_STATUS] * 2 and same,
    )


def _two(bench: Bench, workdir: Path) -> tuple[Victim, Victim]:
    """Both processes of a run."""
    with socket.create_server(("localhost", 0)) as server:
        place = f"localhost:{server.getsockname()[1]},2"
    first, second = (
        Victim(
            bench.data, workdir, f"--distributed={place},{number}", name=f"{workdir.name}.{number}"
        )
        for number in range(2)
    )
    return first, second
