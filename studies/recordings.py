"""How well do the recipes do on each data set? A table and a picture of several seeds of each.

    python -m studies.recordings --out studies/results/recordings "digits=runs/d0,runs/d1"

Each argument is the name of a row and the finished runs (folders of `experiments.train`) that it
sums up. Writes OUT.md and OUT.png.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from modessm_jax.text import percent
from studies.shared import read_log, table

COLUMNS = (
    "recordings", "runs", "val PER, mean", "lowest to highest", "without silence", "nats per label",
    "steps", "minutes", "input stall", "parameters",
)  # fmt: skip


def read(folder: Path) -> dict[str, Any]:
    """The results of a run and its validation curve, as `curve`: [(step, PER)]."""
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    lines = read_log(folder)
    results["curve"] = [(line["step"], line["per"]) for line in lines if "per" in line]
    return results


def row(name: str, runs: list[dict[str, Any]]) -> list[str]:
    """One line of the table; minutes and stall are those of the slowest run."""
    rates = [run["val"]["per"] for run in runs]
    silent = float(np.mean([run["val"]["per_no_silence"] for run in runs]))
    nats = float(np.mean([run["val"]["nats_per_label"] for run in runs]))
    return [
        name,
        str(len(runs)),
        percent(float(np.mean(rates))),
        f"{percent(min(rates))} to {percent(max(rates))}",
        percent(silent),
        f"{nats:.3f}",
        str(runs[0]["steps"]),
        f"{max(run['wall_seconds'] for run in runs) / 60:.1f}",
        percent(max(run["input_stall"] for run in runs)),
        f"{runs[0]['parameters']:,}",
    ]


def draw(path: Path, groups: dict[str, list[dict[str, Any]]]) -> None:
    """Validation PER against steps, one panel a row, one line a run."""
    figure = Figure(figsize=(4 * len(groups), 3.6), dpi=100, layout="constrained")
    panels = figure.subplots(1, len(groups), squeeze=False)[0]
    for axes, (name, runs) in zip(panels, groups.items(), strict=True):
        for run in runs:
            steps, rates = zip(*run["curve"], strict=True)
            seed = run["config"]["training"]["seed"]
            axes.plot(steps, 100 * np.array(rates), marker="o", markersize=3, label=f"seed {seed}")
        axes.set_title(name, fontsize=11)
        axes.set_xlabel("step")
        axes.set_yscale("log")
        axes.grid(color="#eeeeee", which="both")
        axes.legend(fontsize=8, frameon=False)
    panels[0].set_ylabel("validation PER, %")
    figure.savefig(path)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m studies.recordings", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--out", type=Path, required=True, help="path without suffix")
    parser.add_argument(
        "rows", nargs="+", metavar="NAME=RUN[,RUN...]", help="name of a row, and its runs"
    )
    options = parser.parse_args(arguments)
    groups = {}
    for argument in options.rows:
        name, _, folders = argument.partition("=")
        groups[name] = [read(Path(folder)) for folder in folders.split(",")]
    text = table(COLUMNS, [row(name, runs) for name, runs in groups.items()]) + "\n"
    options.out.with_suffix(".md").write_text(text, encoding="utf-8")
    draw(options.out.with_suffix(".png"), groups)
    print(text)


if __name__ == "__main__":
    main()
