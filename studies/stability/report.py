"""The report of the stability study: findings and tables in Markdown, and a picture."""

import statistics
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from modessm_jax.text import percent
from studies.shared import table
from studies.stability.cells import SAVE_EVERY, WINDOW, Cell, Outcome

NEAR = 0.1  # relative distance to the best PER that a guarded run may end at

_NORM, _BARE, _GUARDED = "#4477aa", "#cc3311", "#228833"
_HEADER = (
    "peak rate", "warm-up", "clip", "final norm", "diverged at", "worst rise", "skipped",
    "PER at the end", "lowest PER", "guarded: rollbacks", "guarded: PER",
)  # fmt: skip
_FACTORS: Mapping[str, Callable[[Cell], str]] = {
    "peak rate": lambda cell: f"{cell.rate:g}",
    "warm-up": lambda cell: f"{cell.warmup}",
    "clip": lambda cell: f"{cell.clip:g}",
    "final norm": lambda cell: "with" if cell.norm else "without",
}


class Pair(NamedTuple):
    """A cell's run, and the guarded run where the first diverged."""

    run: Outcome
    guarded: Outcome | None


Study = Mapping[Cell, Pair]


def format_report(study: Study, *, title: str, command: str) -> str:
    """Markdown: the findings, the effect of each factor, and every cell."""
    introduction = (
        f"# Stability on {title}\n\n    {command}\n\nA run diverged where the divergence guard "
        f"(`guard.window={WINDOW}`) would have raised an alarm, or where it stopped. `worst rise` "
        "is the highest rise that lasted, as a fraction of an alarm's. Guarded runs were trained "
        f"where the guard would have acted, with `training.save_every={SAVE_EVERY}`."
    )
    return "\n\n".join([introduction, _findings(study), _factors(study), _cells(study)]) + "\n"


def draw(path: Path, study: Study) -> None:
    """Draws every run's loss against its steps, a panel for each peak rate."""
    rates = sorted({cell.rate for cell in study})
    figure = Figure(figsize=(4.2 * len(rates), 4.2), dpi=100, layout="constrained")
    panels = figure.subplots(1, len(rates), squeeze=False, sharey=True)[0]
    for panel, rate in zip(panels, rates, strict=True):
        _draw_rate(panel, {cell: pair for cell, pair in study.items() if cell.rate == rate})
        panel.set_title(f"peak rate {rate:g}")
        panel.set_xlabel("step")
    panels[0].set_ylabel("training loss, nats a frame")
    panels[0].legend(fontsize=8, frameon=False)
    figure.savefig(path, format="png")


def _draw_rate(axes: Axes, study: Study) -> None:
    named: set[str] = set()

    def label(text: str) -> str:
        """The text, once: matplotlib leaves out what begins with an underscore."""
        first = text not in named
        named.add(text)
        return text if first else "_"

    for cell, (run, guarded) in study.items():
        color = _NORM if cell.norm else _BARE
        text = label("final norm" if cell.norm else "no final norm")
        axes.plot(*_smooth(run.losses), color=color, lw=0.9, alpha=0.8, label=text)
        if run.diverged is not None and run.losses:
            loss = dict(run.losses).get(run.diverged, run.losses[-1][1])
            axes.plot([run.diverged], [loss], "x", color=color, label=label("diverged"))
        if guarded is not None:
            text = label("guarded")
            axes.plot(*_smooth(guarded.losses), color=_GUARDED, lw=0.9, ls="--", label=text)
    axes.set_yscale("log")


def _smooth(losses: list[tuple[int, float]], width: int = 8) -> tuple[list[int], list[float]]:
    """Means of a few neighbours, so that the lines can be distinguished."""
    groups = [losses[i : i + width] for i in range(0, len(losses), width)]
    means = [statistics.fmean(loss for _, loss in group) for group in groups]
    return [group[-1][0] for group in groups], means


def _findings(study: Study) -> str:
    diverged = {cell: pair for cell, pair in study.items() if pair.run.diverged is not None}
    healthy = [pair.run.per for cell, pair in study.items() if cell not in diverged]
    ended = [per for per in healthy if per is not None]
    lines = [f"{len(diverged)} of {len(study)} runs diverged."]
    if ended:
        lines.append(f"The best of the others ended with {percent(min(ended))} PER.")
    for cell, pair in diverged.items():
        if pair.guarded is not None:
            lines.append(_saved(cell, pair.guarded, min(ended, default=None)))
    return "\n".join(f"- {line}" for line in lines)


def _saved(cell: Cell, guarded: Outcome, best: float | None) -> str:
    name = f"{cell.name}, guarded:"
    if guarded.per is None:
        return f"{name} stopped after the last rollback that `guard.tries` allows."
    ending = f"{name} ended with {percent(guarded.per)} PER"
    if best is None:
        return f"{ending}."
    near = guarded.per <= (1 + NEAR) * best
    return f"{ending}, {'within' if near else 'NOT within'} {percent(NEAR)} of the best."


def _factors(study: Study) -> str:
    rows = []
    for name, of in _FACTORS.items():
        for value in dict.fromkeys(map(of, study)):
            runs = [pair.run for cell, pair in study.items() if of(cell) == value]
            rest = [x.per for x in runs if x.diverged is None and x.per is not None]
            median = percent(statistics.median(rest)) if rest else "none"
            lost = sum(x.diverged is not None for x in runs)
            rows.append([name, value, f"{lost} of {len(runs)}", median])
    return table(["", "", "diverged", "median PER of the rest"], rows)


def _cells(study: Study) -> str:
    rows = []
    for cell, (run, guarded) in study.items():
        row = [of(cell) for of in _FACTORS.values()]
        row += ["no" if run.diverged is None else f"step {run.diverged}", f"{run.worst:.2f}"]
        row += [str(run.skipped), _per(run.per), _per(run.best)]
        row += ["", ""] if guarded is None else [str(guarded.rollbacks), _per(guarded.per)]
        rows.append(row)
    return table(_HEADER, rows)


def _per(per: float | None) -> str:
    return "stopped" if per is None else percent(per)
