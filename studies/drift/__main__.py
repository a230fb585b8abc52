"""How does a decoder's error grow after its last training day, and what does recalibration regain?

    python -m studies.drift --data DATA --work DIR --out OUT --later S9 S10 --lexicon L --lm G -- \\
        --config.augment.time_masks=4

Trains the config twice for each seed: on all sessions but the `--later` ones, and, with as many
passes over its trials, on all of them. The config has one stage (`training.steps`).
Each later session is then decoded by the first decoder as it is (its adapter that of the nearest
session), after recalibration with its first few labelled trials, and after recalibration on its
training trials without labels, by every method, from session to session. The second decoder says
what could be reached. Arguments after `--` go to both trainings. After an interruption, give the
same command: what is complete is kept. Several processes may share DIR, with other `--seeds`; give
all seeds at the end. Writes OUT.md and OUT.png.
"""

import argparse
import itertools
import shlex
import sys
from pathlib import Path

from absl import logging

from modessm_jax.recalibration.unlabelled import METHODS
from modessm_jax.runtime.compile_cache import compile_cache
from studies.drift.measure import Plan, measure, trained_first
from studies.drift.report import draw, format_report
from studies.shared import without_folders


def main(arguments: list[str] | None = None) -> None:
    given = sys.argv[1:] if arguments is None else arguments
    options = _parser().parse_args(list(itertools.takewhile(lambda word: word != "--", given)))
    further = tuple(itertools.dropwhile(lambda word: word != "--", given))[1:]
    logging.set_verbosity(logging.WARNING)
    plan = Plan(
        data=options.data,
        work=options.work,
        config=options.config,
        later=tuple(options.later),
        trials=tuple(options.trials),
        methods=tuple(options.methods),
        passes=options.passes,
        lexicon=options.lexicon,
        lm=options.lm,
        further=further,
    )
    try:
        trained = trained_first(plan)
        with compile_cache(options.work / "compiled"):
            found = {seed: measure(plan, seed) for seed in options.seeds}
    except (RuntimeError, ValueError, OSError) as error:
        raise SystemExit(str(error)) from error
    words = without_folders(given, "--data", "--work", "--out", "--lexicon", "--lm")
    command = shlex.join(["python", "-m", "studies.drift", *words])
    report = format_report(found, trained, title=options.data.name, command=command)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.with_suffix(".md").write_text(report, encoding="utf-8")
    draw(options.out.with_suffix(".png"), found, trained)
    print(report)


def _parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(prog="python -m studies.drift", description=__doc__)
    found.formatter_class = argparse.RawDescriptionHelpFormatter
    add = found.add_argument
    add("--data", type=Path, required=True, help="folder of the recordings")
    add("--work", type=Path, required=True, help="folder for the runs; kept, and reused")
    add("--out", type=Path, required=True, help="path without suffix")
    add("--later", nargs="+", required=True, metavar="SESSION", help="not trained on at first")
    add("--config", default="configs/gru.py:demo", help="of the decoders (%(default)s)")
    add("--seeds", type=int, nargs="+", default=[0, 1, 2], help="(%(default)s)")
    add("--trials", type=int, nargs="+", default=[5, 10, 20, 40], help="labelled (%(default)s)")
    add("--methods", nargs="*", choices=METHODS, default=METHODS, help="unlabelled (%(default)s)")
    add("--passes", type=int, default=2, help="over the unlabelled trials (%(default)s)")
    add("--lexicon", type=Path, help="for the labels that the decoder makes (none)")
    add("--lm", type=Path, help="n-gram of its words (none)")
    return found


if __name__ == "__main__":
    main()
