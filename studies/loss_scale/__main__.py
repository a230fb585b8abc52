"""How large are the costs of CTC and RNN-T? Compared at initialisation and along a training run.

    python -m studies.loss_scale --out studies/results/loss_scale [--workdir RUN]

Newly initialised CTC heads and joint networks of MODE-SSM, 128 wide, are measured on random encoder
features: costs in nats, per label, per frame and by MODE-SSM's rule, the norms of their gradients
with respect to the features, and the costs in theory where all classes are equally likely. With
--workdir the same is measured of the initial model and of every checkpoint of a staged run, on
validation trials; nothing is written to the run. Writes OUT.md and OUT.png.
"""

import argparse
from pathlib import Path
from typing import Any

from configs.modessm import get_config
from modessm_jax.models.build import Functional, build
from studies.loss_scale.course import along_run
from studies.loss_scale.measure import Shape, at_start, labels_at
from studies.loss_scale.report import SEED, draw, format_report

WIDTH = 128


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m studies.loss_scale", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--out", type=Path, required=True, help="path without suffix")
    parser.add_argument("--workdir", type=Path, metavar="RUN", help="folder of a staged run")
    parser.add_argument(
        "--frames",
        type=int,
        nargs="+",
        default=[25, 50, 100, 200, 400, 800],
        metavar="T",
        help="encoder frames of an example (25 50 100 200 400 800)",
    )
    parser.add_argument(
        "--shares",
        type=float,
        nargs="+",
        default=[0.05, 0.1, 0.2, 0.5],
        metavar="U/T",
        help=f"labels per frame (0.05 0.1 0.2 0.5); T = {SEED.frames}, U = {SEED.labels} is always "
        "measured too",
    )
    parser.add_argument(
        "--draws", type=int, default=5, help="initialisations, whose median is reported (5)"
    )
    parser.add_argument(
        "--batches", type=int, default=2, help="validation batches for each checkpoint (2)"
    )
    options = parser.parse_args(arguments)
    for name in ("draws", "batches"):
        if getattr(options, name) < 1:
            parser.error(f"--{name} is {getattr(options, name)}; need at least 1")
    swept = {Shape(t, labels_at(share, t)) for t in options.frames for share in options.shares}
    try:
        # The run first: it may be unfit.
        course = options.workdir and along_run(options.workdir, batches=options.batches)
        models = [fresh(seed) for seed in range(options.draws)]
        starts = at_start(models, sorted(swept | {SEED}))
        report = format_report(starts, course)
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.with_suffix(".md").write_text(report, encoding="utf-8")
        draw(options.out.with_suffix(".png"), starts, options.shares, course)
    except (ValueError, OSError) as error:
        raise SystemExit(f"{type(error).__name__}: {error}") from error
    print(report)


def fresh(seed: int) -> Functional:
    """A new model with MODE-SSM's heads, `WIDTH` wide; its other parts are as small as possible."""
    model: Any = get_config("small").model
    config = model.to_dict() | {"d": WIDTH, "joint": WIDTH, "layers": 2, "head_scale": 1.0}
    return build(config, channels=1, sessions=1, hides_bins=False, seed=seed)


if __name__ == "__main__":
    main()
