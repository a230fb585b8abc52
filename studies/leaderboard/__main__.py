"""Which model is better? Trains recipes on data sets under equal terms, and compares them.

    python -m studies.leaderboard gru:small multiscale:small modessm:small \\
        --data DATA/spoken_digits DATA/grid_sentences --work DIR --out OUT --seconds 450

A recipe is a config (`gru:small` is `configs/gru.py:small`), with a name where it changes keys:
"causal=multiscale:small model.causal=True". Arguments after `--` go to all trainings.

Each run has the steps of its recipe, or with --seconds as many as take so long: a learning rate
that falls on a schedule must know its last step, so a short run of each recipe on each data set
measures the seconds per step first, and all seeds use that figure. The seconds are those of
training steps alone.

Runs train in processes of their own and share what is compiled. After an interruption, give the
same command: what is complete is kept, and a run that was cut short goes on. Several processes may
be given the same command: each takes runs that no other is at. Pin them (`taskset`), one core each.
Writes OUT.md, a picture OUT_<data set>.png each, and with --test OUT_<data set>_test.jsonl.
"""

import argparse
import itertools
import shlex
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from absl import logging

from modessm_jax.runtime.compile_cache import compile_cache
from modessm_jax.runtime.files import write_text
from modessm_jax.runtime.lock import BusyError
from modessm_jax.text import percent, total
from studies.leaderboard.measure import (
    FailedError,
    Job,
    Scored,
    cache_of,
    is_complete,
    measure,
    predictions_of,
)
from studies.leaderboard.plan import Plan, check_data, read_entry
from studies.leaderboard.report import draw, format_report, head_of, picture_of
from studies.shared import without_folders

_INTERRUPTED = "interrupted; give the same command to go on"
_SECONDS_BETWEEN_LOOKS = 10.0  # at runs that other processes are at


def main(arguments: list[str] | None = None) -> None:
    given = sys.argv[1:] if arguments is None else arguments
    before = list(itertools.takewhile(lambda word: word != "--", given))
    options = _parser().parse_args(before)
    logging.set_verbosity(logging.WARNING)
    try:
        plan = _plan(options, given[len(before) + 1 :])
        against = options.against or plan.entries[0].name
        names = [entry.name for entry in plan.entries]
        if against not in names:
            raise ValueError(f"--against {against}: choose one of {', '.join(names)}")
        found = _complete(plan)
    except KeyboardInterrupt as error:
        raise SystemExit(_INTERRUPTED) from error
    except (FailedError, ValueError, OSError) as error:
        raise SystemExit(str(error)) from error
    words = (
        f"DATA/{Path(word).name}" if Path(word) in plan.data else word
        for word in without_folders(given, "--work", "--out")
    )
    command = shlex.join(["python", "-m", "studies.leaderboard", *words])
    boards = {
        root.name: {e: [found[Job(e, root, seed)] for seed in plan.seeds] for e in plan.entries}
        for root in plan.data
    }
    report = format_report(plan, boards, against, command=command, out=options.out)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    write_text(options.out.with_name(f"{options.out.name}.md"), report)
    for name, board in boards.items():
        draw(picture_of(options.out, name), board)
    for root in plan.data if plan.test else ():
        parts = [predictions_of(plan, job).read_text(encoding="utf-8") for job in _jobs(plan, root)]
        write_text(
            options.out.with_name(f"{options.out.name}_{root.name}_test.jsonl"), "".join(parts)
        )
    print(report)


def _plan(options: argparse.Namespace, further: list[str]) -> Plan:
    """What is asked, checked before the first run."""
    entries = tuple(read_entry(text, further) for text in options.configs)
    for what, names in (
        ("recipe", [entry.folder for entry in entries]),
        ("data set", [root.name for root in options.data]),
        ("seed", options.seeds),
    ):
        twice = [name for name in dict.fromkeys(names) if names.count(name) > 1]
        if twice:
            raise ValueError(f"{what} {twice[0]} is given twice")
    if options.seconds is not None and options.seconds <= 0:
        raise ValueError(f"--seconds {options.seconds:g}: give more than 0")
    for root in options.data:
        check_data(root, ["train", "val", *["test"] * options.test])
    return Plan(
        work=options.work,
        entries=entries,
        data=tuple(options.data),
        seeds=tuple(options.seeds),
        seconds=options.seconds,
        clock=options.clock,
        test=options.test,
    )


def _jobs(plan: Plan, *roots: Path) -> list[Job]:
    """The runs, the first seed of all of them first."""
    return [
        Job(entry, root, seed)
        for seed in plan.seeds
        for root in roots or plan.data
        for entry in plan.entries
    ]


def _complete(plan: Plan) -> dict[Job, Scored]:
    """Trains and scores what is not complete, and waits for what other processes are at.

    Raises:
        FailedError: the training of some runs failed; all others are complete.
    """
    waiting = _jobs(plan)
    progress = _Progress(plan, waiting)
    found: dict[Job, Scored] = {}
    failures: list[str] = []
    with compile_cache(cache_of(plan)):
        while waiting:
            busy = []
            for job in waiting:
                new = not is_complete(plan, job)
                try:
                    found[job] = measure(plan, job)
                except BusyError:
                    busy.append(job)
                    continue
                except FailedError as error:
                    failures.append(str(error))
                    print(error, flush=True)
                    continue
                if new:
                    progress.show(job, found[job])
            if len(busy) == len(waiting):
                time.sleep(_SECONDS_BETWEEN_LOOKS)
            waiting = busy
    if failures:
        problem = "\n".join(failures)
        raise FailedError(f"{problem}\nAll others are complete. Leave these out, or try again")
    return found


class _Progress:
    """Says what was found of each run, and how long the rest takes.

    Runs that other processes complete meanwhile count as well.
    """

    def __init__(self, plan: Plan, jobs: Sequence[Job]):
        self._plan, self._jobs, self._start = plan, list(jobs), time.monotonic()
        self._kept = self._complete
        print(f"{len(jobs)} runs, {self._kept} of them complete", flush=True)

    @property
    def _complete(self) -> int:
        return sum(is_complete(self._plan, job) for job in self._jobs)

    def show(self, job: Job, scored: Scored) -> None:
        """After a run that was not complete before."""
        runs, done = len(self._jobs), self._complete
        left = (time.monotonic() - self._start) / (done - self._kept) * (runs - done) / 3600
        rate = percent(total(scored.edits[head_of(job.entry)]).rate)
        print(f"{job}: {rate}, {scored.steps:,} steps, {scored.seconds:.0f} s", flush=True)
        print(f"{done}/{runs} runs, about {left:.1f} h left", flush=True)


def _parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(prog="python -m studies.leaderboard", description=__doc__)
    found.formatter_class = argparse.RawDescriptionHelpFormatter
    add = found.add_argument
    add("configs", nargs="+", metavar="RECIPE", help="such as gru:small")
    add("--data", type=Path, nargs="+", required=True, help="folders of recordings")
    add("--work", type=Path, required=True, help="folder for the runs; kept, and reused")
    add("--out", type=Path, required=True, help="path without suffix")
    add("--seeds", type=int, nargs="+", default=[0, 1, 2], help="(%(default)s)")
    add("--seconds", type=float, help="of each run's training steps (each recipe's own steps)")
    add("--clock", choices=["cpu", "wall"], default="cpu", help="wall on accelerators (cpu)")
    add("--against", metavar="RECIPE", help="that the others are compared with (the first)")
    add("--test", action="store_true", help="write what is decoded of the test split")
    return found


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(_INTERRUPTED))  # the run at hand saves
    main()
