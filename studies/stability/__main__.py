"""Which training recipes diverge, and does the divergence guard rescue them?

    python -m studies.stability --data DATA --work DIR --out OUT
    python -m studies.stability --data DATA --work DIR --out OUT --rates 2e-3 1e-3 -- \\
        --config.data.batch_size=8

Trains the multi-scale model with every combination of peak rate, warm-up, clipping and final
LayerNorm, each run in a process of its own; those that diverge are trained once more with the
divergence guard. `--design single` trains the first values together, each other value alone in its
place, and the last values together: the effect of each change by itself, in a few runs. Arguments
after `--` go to every run (see `python -m experiments.train --help`). After an interruption, give
the same command: complete runs are kept, and incomplete ones resume. Writes OUT.md and OUT.png.
"""

import argparse
import itertools
import json
import shlex
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from modessm_jax.runtime.files import write_json
from studies.shared import output_of, train_in_process, without_folders
from studies.stability.cells import Cell, Outcome, full_grid, one_at_a_time, read_outcome
from studies.stability.report import Pair, draw, format_report

_NORMS = {"without": False, "with": True}
_DESIGNS = {"all": full_grid, "single": one_at_a_time}
_ENDED = "ended.json"  # file in the folder of a run that is over: its arguments


def main(arguments: list[str] | None = None) -> None:
    given = sys.argv[1:] if arguments is None else arguments
    options = parser().parse_args(list(itertools.takewhile(lambda word: word != "--", given)))
    further = list(itertools.dropwhile(lambda word: word != "--", given))[1:]
    norms = [_NORMS[name] for name in options.norms]
    grid = _DESIGNS[options.design](options.rates, options.warmups, options.clips, norms)
    study: dict[Cell, Pair] = {}
    start = time.monotonic()
    pool = ThreadPoolExecutor(options.jobs)
    try:
        pending = {pool.submit(run_cell, cell, options, further): cell for cell in grid}
        for done, future in enumerate(as_completed(pending), 1):
            study[pending[future]] = future.result()
            print(_line(pending[future], study[pending[future]]), flush=True)
            left = (time.monotonic() - start) / done * (len(grid) - done)
            print(f"{done}/{len(grid)} cells, about {left / 60:.0f} min left", flush=True)
    except (RuntimeError, ValueError, OSError) as error:
        raise SystemExit(str(error)) from error
    finally:
        pool.shutdown(cancel_futures=True)  # after a failure, or Ctrl-C, no further run begins
    study = {cell: study[cell] for cell in grid}
    words = without_folders(given, "--data", "--work", "--out")
    command = shlex.join(["python", "-m", "studies.stability", *words])
    report = format_report(study, title=options.data.name, command=command)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.with_suffix(".md").write_text(report, encoding="utf-8")
    draw(options.out.with_suffix(".png"), study)
    print(report)


def parser() -> argparse.ArgumentParser:
    """Of the arguments before `--`."""
    found = argparse.ArgumentParser(prog="python -m studies.stability", description=__doc__)
    found.formatter_class = argparse.RawDescriptionHelpFormatter
    add = found.add_argument
    add("--data", type=Path, required=True, help="folder of the recordings")
    add("--work", type=Path, required=True, help="folder for the runs; kept, and reused")
    add("--out", type=Path, required=True, help="path without suffix")
    add("--config", default="configs/multiscale.py:small", help="of every run (%(default)s)")
    add(
        "--rates",
        type=float,
        nargs="+",
        default=[2e-3, 1e-3, 5e-4],
        help="peak rates (%(default)s)",
    )
    add("--warmups", type=int, nargs="+", default=[40, 100], help="steps (%(default)s)")
    add("--clips", type=float, nargs="+", default=[1.0, 0.5], help="gradient norms (%(default)s)")
    add(
        "--norms",
        nargs="+",
        choices=_NORMS,
        default=list(_NORMS),
        help="final LayerNorm: %(default)s",
    )
    add("--design", choices=_DESIGNS, default="all", help="which combinations (%(default)s)")
    add("--steps", type=int, default=400, help="steps of each run (%(default)s)")
    add("--jobs", type=int, default=1, help="runs at a time (%(default)s)")
    return found


def run_cell(cell: Cell, options: argparse.Namespace, further: Sequence[str]) -> Pair:
    """Trains the cell's run, and the guarded one where the guard would have acted."""
    run = train(cell, options, further, guarded=False)
    if run.diverged is None:
        return Pair(run, None)
    return Pair(run, train(cell, options, further, guarded=True))


def train(
    cell: Cell, options: argparse.Namespace, further: Sequence[str], *, guarded: bool
) -> Outcome:
    """Trains a run, unless it is complete, and reads its outcome.

    Raises:
        RuntimeError: it failed, and the message names the file of its output; or it was trained
            with other arguments.
    """
    workdir = options.work / (cell.name + ("-guarded" if guarded else ""))
    chosen = [f"--config={options.config}", f"--config.data.root={options.data}"]
    chosen += [*cell.overrides(steps=options.steps, guarded=guarded), *further]
    over = workdir / _ENDED
    if over.exists() and json.loads(over.read_text(encoding="utf-8")) != chosen:
        raise RuntimeError(
            f"{workdir} was trained with other arguments, see {over}; give another --work"
        )
    if not over.exists():
        ended = train_in_process(workdir, chosen)
        # A run that stops because it diverged is a finding; any other failure is an error.
        log_text = output_of(workdir).read_text(encoding="utf-8")
        diverged = any(f"{name}:" in log_text for name in ("DivergedError", "NonFiniteError"))
        if ended.status and not diverged:
            raise RuntimeError(f"{cell.name} failed; its output is in {output_of(workdir)}")
        write_json(over, chosen)
    return read_outcome(workdir, guarded=guarded)


def _line(cell: Cell, pair: Pair) -> str:
    run = pair.run
    text = f"{cell.name}: {'stopped' if run.per is None else f'PER {run.per:.2%}'}"
    if run.diverged is not None:
        text += f", diverged at step {run.diverged}"
    if pair.guarded is not None:
        per = pair.guarded.per
        text += f"; guarded: {'stopped' if per is None else f'PER {per:.2%}'}"
    return text


if __name__ == "__main__":
    main()
