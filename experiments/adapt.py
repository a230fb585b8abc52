"""Recalibrates a trained decoder for a session, from a few labelled trials or from none.

    python -m experiments.adapt --workdir RUN --data_root DATA --session S --trials 20 --out RUN2
    python -m experiments.adapt --workdir RUN --data_root DATA --session S --out RUN2 \\
        --unlabelled masked_copies --lexicon words.txt --lm words.arpa

With labels, the first --trials of the session's training trials are trained on, by a recipe: its
adapter alone ("adapter"), with the layers that read the features ("front_end"), or the whole model,
with the sessions trained on before as well ("all"). Without labels, the features of the training
trials alone are used, and the adapter alone changes. Either way the session begins with its own
adapter, or that of the session nearest in time.

The val trials of the session, and of the sessions trained on before that are in DATA, are scored
before and after. RUN2 is a run like any other: evaluate it, decode with it, recalibrate it again.
"""

import argparse
import time
from pathlib import Path
from typing import Any

from absl import logging

from modessm_jax.data.recordings import Recordings
from modessm_jax.data.roots import session_names
from modessm_jax.recalibration import labelled, unlabelled
from modessm_jax.recalibration.adapter import with_session, write_recalibrated
from modessm_jax.recalibration.job import (
    compare,
    read_label,
    read_session,
    recalibrate,
    score,
)
from modessm_jax.runs.finished import check_new
from modessm_jax.runs.load import Run, load_run
from modessm_jax.runtime.compile_cache import compile_cache
from modessm_jax.runtime.files import write_json
from modessm_jax.training.job import run as train

PASSES = 1


def main(arguments: list[str] | None = None) -> None:
    options = _parse(arguments)
    logging.set_verbosity(logging.WARNING)
    try:
        with compile_cache(options.workdir / "compiled"):
            _adapt(options)
    except (ValueError, OSError, ImportError) as error:
        raise SystemExit(str(error)) from error


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m experiments.adapt", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--workdir", type=Path, required=True, help="of the trained run")
    parser.add_argument("--data_root", type=Path, required=True, help="of the recordings")
    parser.add_argument("--session", required=True, help="to recalibrate for")
    parser.add_argument("--out", type=Path, required=True, help="folder of the new run")
    parser.add_argument("--trials", type=int, help="of the session to use, the first (all)")
    with_labels = parser.add_argument_group("with labels")
    with_labels.add_argument(
        "--recipe", choices=labelled.RECIPES, help=f"what is trained ({labelled.ADAPTER})"
    )
    with_labels.add_argument("--steps", type=int, help=f"updates ({labelled.STEPS})")
    without = parser.add_argument_group("without labels")
    without.add_argument("--unlabelled", choices=unlabelled.METHODS, help="method")
    without.add_argument("--passes", type=int, help=f"times that each trial is used ({PASSES})")
    without.add_argument("--lexicon", type=Path, help="words that the decoder may find (none)")
    without.add_argument("--lm", type=Path, help="n-gram of these words (none)")
    options = parser.parse_args(arguments)
    given = {name for name, value in vars(options).items() if value is not None}
    if options.unlabelled is None and given & {"passes", "lexicon", "lm"}:
        parser.error("--passes, --lexicon and --lm need --unlabelled")
    if options.unlabelled is not None and given & {"recipe", "steps"}:
        parser.error("--recipe and --steps are for labelled trials; leave --unlabelled away")
    if options.lm is not None and options.lexicon is None:
        parser.error("--lm needs --lexicon")
    for name in ("trials", "steps", "passes"):
        if name in given and getattr(options, name) < 1:
            parser.error(f"--{name} must be 1 or more")
    return options


def _adapt(options: argparse.Namespace) -> None:
    workdir, root, session, out = (
        options.workdir, options.data_root, options.session, options.out
    )  # fmt: skip
    check_new(out)
    run = load_run(workdir)
    recordings = read_session(run, root, session)
    scored = [session, *(name for name in run.sessions if name != session)]
    before = score(run, root, scored)
    start = time.perf_counter()
    if options.unlabelled is None:
        described = _with_labels(options, run, recordings)
    else:
        described = _without_labels(options, run)
    seconds = time.perf_counter() - start
    table, rates = compare(before, score(load_run(out), root, scored), session)
    print(f"recalibrated in {seconds:.0f} s\n{table}")
    described |= {"from": str(workdir), "session": session, "seconds": round(seconds, 1)}
    write_json(out / "recalibration.json", described | rates)


def _with_labels(options: argparse.Namespace, run: Run, recordings: Recordings) -> dict[str, Any]:
    recipe = options.recipe or labelled.ADAPTER
    if not recordings.labelled:
        raise ValueError(f"{options.session} has no labels: choose a method by --unlabelled")
    there = session_names(options.data_root)
    replayed = [name for name in run.sessions if name in there and name != options.session]
    used = recordings.trials[: options.trials]
    config = labelled.recalibration(
        run.config,
        options.workdir,
        root=options.data_root,
        session=options.session,
        replayed=replayed,
        unused=recordings.trials[len(used) :],
        recipe=recipe,
        steps=options.steps or labelled.STEPS,
        batch_size=len(used),
    )
    train(config, options.out)
    return {"recipe": recipe, "trials": len(used)}


def _without_labels(options: argparse.Namespace, run: Run) -> dict[str, Any]:
    label = None if options.lexicon is None else read_label(options.lexicon, options.lm)
    method = unlabelled.Options(method=options.unlabelled)
    recalibrator = unlabelled.Recalibrator(run, method, label)
    updates = recalibrate(
        recalibrator,
        run,
        options.data_root,
        options.session,
        trials=options.trials,
        passes=options.passes or PASSES,
    )
    made = with_session(run, options.session, recalibrator.result())
    write_recalibrated(options.out, options.workdir, made, options.session, options.data_root)
    undone = f"{recalibrator.taken_back} of {recalibrator.checks} checks took steps back"
    print(f"{options.unlabelled}: {len(updates)} trials, {undone}")
    return {"method": options.unlabelled, "trials": len(updates), "checks": undone}


if __name__ == "__main__":
    main()
