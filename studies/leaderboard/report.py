"""The report of a leaderboard: a table and a picture for each data set."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, median

import numpy as np
from matplotlib.figure import Figure

from modessm_jax.text import Edits, percent, total
from modessm_jax.training.stages import read_stages
from studies.leaderboard.measure import Scored, selected
from studies.leaderboard.plan import EVALUATIONS, Entry, Plan, steps_of
from studies.shared import table

Board = Mapping[Entry, Sequence[Scored]]  # the seeds of every recipe on one data set

_RESAMPLES = 2000


def format_report(
    plan: Plan, boards: Mapping[str, Board], against: str, *, command: str, out: Path
) -> str:
    """Markdown: how it was measured, and a table and a picture for each data set, by name."""
    parts = [f"# Leaderboard\n\n    {command}", _terms(plan, against)]
    for name, board in boards.items():
        picture = f"![Error rates on {name}]({picture_of(out, name).name})"
        parts += [f"## {name}", _table(plan, board, against), picture]
    return "\n\n".join(parts) + "\n"


def picture_of(out: Path, name: str) -> Path:
    """The file of the picture of a data set."""
    return out.with_name(f"{out.name}_{name}.png")


def head_of(entry: Entry) -> str:
    """The head by whose error rate the recipe chooses its best model."""
    return selected(read_stages(entry.config)[-1].select_by)


def difference(
    ours: Sequence[Sequence[Edits]], theirs: Sequence[Sequence[Edits]]
) -> tuple[float, float, float]:
    """Error rate of ours less theirs, over all seeds and trials, and its 95 % interval.

    Each of 2,000 resamples draws trials and seeds with replacement, the same for both. With one
    seed it is `modessm_jax.text.bootstrap_interval`. Few seeds make it too narrow: three that are
    drawn again have 2/3 of their variance.

    Args:
        ours: of every seed, the edits of every trial.
        theirs: the same seeds and trials.

    Raises:
        ValueError: seeds or trials differ.
    """
    lengths, same = (
        np.array([[one.reference_length for one in seed] for seed in way]) for way in (ours, theirs)
    )
    if lengths.shape != same.shape or (lengths != same).any() or (lengths != lengths[0]).any():
        raise ValueError("a paired bootstrap needs two decodings of the same trials and seeds")
    errors, others = (
        np.array([[one.count for one in seed] for seed in way], float) for way in (ours, theirs)
    )
    counts = errors - others
    random = np.random.default_rng(0)
    trials, seeds = (
        random.multinomial(size, np.full(size, 1 / size), size=_RESAMPLES)
        for size in counts.shape[::-1]
    )
    drawn = trials @ lengths[0] * len(counts)
    rates = np.einsum("rt,rs,st->r", trials, seeds, counts)[drawn > 0] / drawn[drawn > 0]
    low, high = np.quantile(rates, [0.025, 0.975])
    return float(counts.sum() / lengths.sum()), float(low), float(high)


def _terms(plan: Plan, against: str) -> str:
    """What the figures are of, in sentences."""
    whose = {"cpu": "CPU seconds of all threads", "wall": "seconds of wall time"}[plan.clock]
    if plan.seconds is None:
        steps = "Every run makes the steps of its recipe."
    else:
        steps = (
            f"Every run has the steps that take {plan.seconds:g} {whose}, by a short run of the "
            "recipe on the same data and machine before; stages and warm-ups are longer or shorter "
            f"by one factor, in brackets, and the run is evaluated {EVALUATIONS} times."
        )
    return (
        f"Val phoneme error rates, silence counted, of each run's best evaluation on the same "
        f"split: the mean over seeds, and each ({', '.join(map(str, plan.seeds))})."
        f" Differences from {against} are in points, with 95 % bootstrap intervals over trials and "
        f"seeds, below 0 where it is beaten. {steps} `seconds` are {whose} that the training steps "
        "took, without compiling, reading and evaluating (mean). `memory` is the most that a "
        "training process took, `step` the median of a step of the model's stream; - where it "
        "needs whole trials."
    )


def _table(plan: Plan, board: Board, against: str) -> str:
    reference = next(entry for entry in board if entry.name == against)
    theirs = [scored.edits[head_of(reference)] for scored in board[reference]]
    rows = []
    for entry, seeds in board.items():
        for head in seeds[0].edits:
            ours = [scored.edits[head] for scored in seeds]
            compared = (entry, head) != (reference, head_of(reference))
            rows.append(
                [
                    entry.name + (f", {head}" if len(seeds[0].edits) > 1 else ""),
                    percent(mean(_rates(seeds, head))),
                    ", ".join(percent(rate) for rate in _rates(seeds, head)),
                    _points(*difference(ours, theirs)) if compared else "",
                    f"{seeds[0].parameters:,}",
                    _steps(plan, entry, seeds),
                    f"{mean(scored.seconds for scored in seeds):.0f}",
                    _megabytes(max(scored.memory for scored in seeds)),
                    _milliseconds([scored.latency for scored in seeds]),
                ]
            )
    header = ["", "val PER", "each seed", f"against {against}", "parameters", "steps", "seconds",
              "memory, MiB", "step, ms"]  # fmt: skip
    return table(header, rows)


def _rates(seeds: Sequence[Scored], head: str) -> list[float]:
    return [total(scored.edits[head]).rate for scored in seeds]


def _points(mean: float, low: float, high: float) -> str:
    return f"{100 * mean:+.2f} ({100 * low:+.2f} to {100 * high:+.2f})"


def _steps(plan: Plan, entry: Entry, seeds: Sequence[Scored]) -> str:
    """The steps, and how many times those of the recipe they are."""
    steps = seeds[0].steps
    share = f" ({steps / steps_of(entry.config):.2f})" if plan.seconds is not None else ""
    return f"{steps:,}{share}"


def _megabytes(memory: int) -> str:
    return f"{memory / 1024:,.0f}" if memory else "-"


def _milliseconds(latencies: Sequence[float | None]) -> str:
    known = [latency for latency in latencies if latency is not None]
    return f"{1e3 * median(known):.2f}" if known else "-"


def draw(path: Path, board: Board) -> None:
    """Draws every seed's error rate and their mean, and how each came down."""
    figure = Figure(figsize=(11.0, 1.6 + 0.5 * max(len(board), 5)), dpi=100, layout="constrained")
    rates, curves = figure.subplots(1, 2, width_ratios=[1, 1.3])
    names = []
    for color, (entry, seeds) in enumerate(board.items()):
        style = {"color": f"C{color % 10}"}
        for head in seeds[0].edits:
            found = [100 * rate for rate in _rates(seeds, head)]
            place = len(names)
            rates.plot(found, [place] * len(found), "o", markersize=5, alpha=0.6, **style)
            rates.plot([mean(found)], [place], "|", markersize=18, markeredgewidth=2, **style)
            names.append(entry.name + (f", {head}" if len(seeds[0].edits) > 1 else ""))
        for number, scored in enumerate(seeds):
            steps, course = zip(*scored.curve, strict=True)
            seconds = scored.seconds / scored.steps * np.array(steps)
            label = None if number else entry.name
            curves.plot(seconds, 100 * np.array(course), marker=".", label=label, **style)
    rates.set_yticks(range(len(names)), names, fontsize=8)
    rates.invert_yaxis()
    rates.set_xlabel("val phoneme error rate, %: seeds, and their mean")
    rates.set_xlim(left=0)
    curves.set_xlabel("seconds of training steps")
    curves.set_ylabel("val phoneme error rate, %")
    curves.set_yscale("log")
    curves.legend(fontsize=7, frameon=False)
    for axes in (rates, curves):
        axes.grid(color="#eeeeee", which="both")
        axes.set_axisbelow(True)
    figure.savefig(path)
