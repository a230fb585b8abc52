"""SIGKILL at random instants: the resumed run must end like one that was never killed."""

import random
import signal
import time
from collections import Counter
from pathlib import Path

from benchmarks.faults.config import STAGES
from benchmarks.faults.report import Row
from benchmarks.faults.victim import Bench, Victim, fingerprint, half_written, stage_of

PER_RUN = 5  # kills of one run; then it may end


class Soak:
    """Kills run after run, each several times, and compares each with the undisturbed one."""

    def __init__(self, bench: Bench, seed: int):
        self._bench = bench
        self._random = random.Random(seed)
        self._phases: Counter[str] = Counter()
        self._writing = 0
        self._kills = 0
        self._runs: list[tuple[int, bool]] = []  # kills, whether it ended the same
        self._orphans = 0

    def until(self, kills: int, writing: int) -> list[Row]:
        """Kills `kills` processes, at least `writing` of them while they write a checkpoint."""
        while self._kills < kills or self._writing < writing:
            to_come = max(1, kills - self._kills)
            self._one_run(min(PER_RUN, to_come), writing)
            print(self._summary(), flush=True)
        return self._rows()

    def _one_run(self, kills: int, writing: int) -> None:
        workdir = self._bench.workdir("soak")
        killed, status = 0, 0
        for number in range(kills):
            # Two of five aim at a checkpoint being written, until enough have hit one.
            aimed = number % 5 in (1, 3) and self._writing < 2 * writing
            victim = Victim(self._bench.data, workdir)
            alive = self._wait_for_a_checkpoint(victim, workdir) if aimed else self._wait(victim)
            if alive:
                victim.signal(signal.SIGKILL)
            status = victim.end()
            if status != -signal.SIGKILL:  # it had ended
                break
            killed += 1
            self._count(victim, workdir)
            self._orphans += victim.survivors()
        else:
            status = Victim(self._bench.data, workdir).end()
        if killed:
            same = status == 0 and fingerprint(workdir) == self._bench.fingerprint
            self._kills += killed
            self._runs.append((killed, same))

    def _wait(self, victim: Victim) -> bool:
        """Waits until a random instant of an undisturbed run; a resumed one may have ended."""
        when = time.monotonic() + self._random.uniform(0.0, self._bench.seconds)
        return victim.wait_until(lambda: time.monotonic() > when)

    def _wait_for_a_checkpoint(self, victim: Victim, workdir: Path) -> bool:
        """Waits until it has begun to write its first, second or third checkpoint."""
        for _ in range(self._random.randrange(3)):
            alive = victim.wait_until(lambda: half_written(workdir))
            if not (alive and victim.wait_until(lambda: not half_written(workdir))):
                return False
        if not victim.wait_until(lambda: half_written(workdir)):
            return False
        time.sleep(self._random.uniform(0.0, 0.2))
        return True

    def _count(self, victim: Victim, workdir: Path) -> None:
        if half_written(workdir):
            self._writing += 1
        step = victim.step
        self._phases["starting" if step is None else stage_of(step)] += 1

    def _summary(self) -> str:
        same = sum(killed for killed, ended_same in self._runs if ended_same)
        return (
            f"{self._kills} kills, {self._writing} of them in the middle of a checkpoint; "
            f"{same} in runs that ended the same ({len(self._runs)} runs)"
        )

    def _rows(self) -> list[Row]:
        same = sum(killed for killed, ended_same in self._runs if ended_same)
        runs = sum(ended_same for _, ended_same in self._runs)
        where = ", ".join(f"{self._phases[phase]} {phase}" for phase in ("starting", *STAGES))
        total, writing = self._kills, self._writing
        return [
            Row(
                "SIGKILL at a random instant, and run again",
                total,
                f"{same} of {total} in runs that end sha256-identical to the undisturbed one "
                f"({runs} of {len(self._runs)} runs; killed in: {where})",
                same == total,
            ),
            Row("  of these while a checkpoint is written", writing, "as above", same == total),
            Row(
                "  loader workers left behind by these",
                total,
                f"{self._orphans} still there after 20 s",
                self._orphans == 0,
            ),
        ]
