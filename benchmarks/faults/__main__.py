"""Injects every fault that a training run must survive into a tiny run, and tabulates the outcomes.

    python -m benchmarks.faults all --out benchmarks/results/faults.md
    python -m benchmarks.faults soak --kills 10

The run is MODE-SSM in all its stages, in processes of their own. `soak` kills them; `signals` sends
SIGTERM and SIGINT; `damage` changes the bytes of checkpoints; `places` fills disks, turns the clock
back, and starts runs in directories of others. `injections` needs no run: slow tests put NaN into
steps of a toy model, and corrupt files of recordings. `all` is all five. Prints the table, writes
it to --out, and exits with status 1 if a verdict is FAILED. Full and read-only disks need root,
`injections` needs pytest; the table names what could not be done.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from absl import logging

from benchmarks.faults import (
    clock,
    damage,
    injections,
    places,
    report,
    signals,
    soak,
    victim,
)

PARTS = ("injections", "signals", "places", "damage", "soak")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.faults", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("part", choices=["all", *PARTS])
    parser.add_argument("--kills", type=int, default=50, help="SIGKILLs")
    parser.add_argument("--writing", type=int, default=10, help="of them in mid-checkpoint")
    parser.add_argument("--flips", type=int, default=200, help="bits flipped, one at a time")
    parser.add_argument("--cuts", type=int, default=50, help="files cut short")
    parser.add_argument("--deletions", type=int, default=20, help="files deleted")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--work", type=Path, help="folder for the runs; kept, and its undisturbed run used again"
    )
    parser.add_argument("--out", type=Path, help="file for the table")
    options = parser.parse_args(arguments)
    logging.set_verbosity(logging.ERROR)  # Orbax's warnings here are harmless
    rows: list[report.Row] = []
    with tempfile.TemporaryDirectory() as temporary:
        directory = Path(temporary) / "faults" if options.work is None else options.work
        for row in run(options, directory.absolute()):
            rows.append(row)
            print(report.table([row]).splitlines()[-1], flush=True)
            if options.out is not None:
                report.write(options.out, rows)
    print(f"\n{report.table(rows)}")
    sys.exit(any(row.passed is False for row in rows))


def run(options: argparse.Namespace, directory: Path) -> Iterator[report.Row]:
    """The rows of the chosen parts, as they come."""
    wanted = PARTS if options.part == "all" else (options.part,)
    if "injections" in wanted:
        yield from injections.rows()
    if wanted == ("injections",):
        return
    bench = victim.set_up(directory)
    print(f"undisturbed: {bench.seconds:.0f} s, sha256 {bench.fingerprint[:16]}", flush=True)
    faults: list[Callable[[victim.Bench], report.Row]] = []
    if "signals" in wanted:
        faults += [signals.terminated, signals.interrupted, signals.twice]
        faults += [signals.terminated_with_workers, signals.interrupted_with_workers]
        faults += [signals.killed_on_resuming, signals.one_of_two]
    if "places" in wanted:
        faults += [places.full, places.read_only, clock.backwards, places.two_runs]
        faults += [places.another_config, places.another_data_set]
    for fault in faults:
        try:
            yield fault(bench)
        except RuntimeError as error:  # a run did not resume after the fault
            yield report.Row(fault.__name__, 1, report.quoted(str(error)), False)
    if "damage" in wanted:
        counts = (options.flips, options.cuts, options.deletions)
        harmed = damage.Damage(bench, options.seed)
        yield from harmed.rows(dict(zip(damage.HARMS, counts, strict=True)))
        yield harmed.rerun()
    if "soak" in wanted:
        yield from soak.Soak(bench, options.seed).until(options.kills, options.writing)


if __name__ == "__main__":
    main()
