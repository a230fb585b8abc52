"""The report of the loss scales: findings and tables in Markdown, and a picture."""

import math
from collections.abc import Collection
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from studies.loss_scale.course import Course, Point
from studies.loss_scale.measure import (
    Pair,
    Shape,
    Start,
    fresh_rnnt_cost,
    labels_at,
    uniform_costs,
)
from studies.shared import table

SEED = Shape(frames=50, labels=10)  # at which MODE-SSM's authors compared the two
BALANCED = (0.3, 3.0)  # the ratios that they accepted

_RULES = {"none": "nats", "labels": "per label", "seed_rule": "MODE-SSM's rule"}
_GRADIENTS = ("CTC gradient", "RNN-T gradient", "ratio")
_COLORS = ("#4477aa", "#cc3311", "#228833", "#aa3377", "#ccbb44", "#66ccee")
_INTRODUCTION = """# RNN-T against CTC

Ratios are RNN-T over CTC. Both costs are exact, and both are normalised by the same rule.
"""
_THEORY = """With V classes equally likely everywhere, T frames and U labels no two neighbours of
which are equal, CTC has C(T + U, 2U) alignments of T classes each and costs
T ln V - ln C(T + U, 2U); RNN-T has C(T + U - 1, U) of T + U each and costs
(T + U) ln V - ln C(T + U - 1, U).
"""


def format_report(starts: Collection[Start], course: Course | None) -> str:
    """Markdown: the costs at random initialisation and, where there is one, along a run.

    Args:
      starts: from `at_start`, that of the shape `SEED` among them.
      course: from `along_run`.
    """
    parts = [_INTRODUCTION, "## At random initialisation\n", _THEORY]
    parts += [_findings(starts), _cost_table(starts), _rule_table(starts)]
    if course is not None:
        parts += ["## Along a run\n", _course_findings(course), _course_table(course)]
    return "\n".join(parts)


def draw(
    path: Path, starts: Collection[Start], shares: Collection[float], course: Course | None
) -> None:
    """Draws the ratio against frames and, where there is a run, its costs and ratio.

    Args:
      path: PNG to write.
      starts: from `at_start`.
      shares: labels per frame; each becomes a line through the starts of that shape.
      course: from `along_run`.
    """
    panels = 1 if course is None else 3
    figure = Figure(figsize=(5.2 * panels, 4.2), dpi=100, layout="constrained")
    axes = figure.subplots(1, panels, squeeze=False)[0]
    _draw_starts(axes[0], starts, shares)
    if course is not None:
        _draw_costs(axes[1], course)
        _draw_ratio(axes[2], course)
    figure.savefig(path, format="png")


def _findings(starts: Collection[Start]) -> str:
    (at_seed,) = (start for start in starts if start.shape == SEED)
    raw, final = at_seed.costs["none"], _remedied(at_seed)
    theory = [uniform_costs(start.shape) for start in starts]
    error = max(
        abs(measured / exact - 1)
        for start, pair in zip(starts, theory, strict=True)
        for measured, exact in zip(start.uniform, pair, strict=True)
    )
    spread = max(
        abs(pair.ratio / start.ratio - 1) for start in starts for pair in start.costs.values()
    )
    return _bullets(
        f"T = {SEED.frames}, U = {SEED.labels}: CTC {raw.ctc:.1f} nats, RNN-T {raw.rnnt:.1f} nats "
        f"an example, ratio {raw.ratio:.2f}. MODE-SSM's note has 17.40 and 4873.28 (ratio 280), "
        "and after its remedy 17.38 and 8.15 (ratio 0.47). The remedy divides RNN-T by T / 2, but "
        f"CTC is there a mean of nats per label: measured so, they are {final.ctc:.2f} and "
        f"{final.rnnt:.2f} (ratio {final.ratio:.2f}) here.",
        f"{len(starts)} shapes: {_range([start.ratio for start in starts], BALANCED)}",
        f"Equally likely classes: {_range([pair.ratio for pair in theory], BALANCED)} The losses "
        f"agree with theory to within {error:.1e} of it.",
        "The rule (nats, per label, per frame, MODE-SSM's) changes no ratio: all examples of a "
        f"shape are divided by the same number. Largest difference: {spread:.1e} of the ratio.",
        "RNN-T by MODE-SSM's rule over CTC per label, the pair of its remedy: "
        f"{_range([_remedied(start).ratio for start in starts], BALANCED)} It is the ratio of the "
        "costs times 2 U / T.",
        "Norms of the gradients with respect to the encoder features: "
        f"{_range([start.gradients.ratio for start in starts])} The joint network's weights begin "
        "at a tenth of the CTC head's.",
        "A fresh transducer finds a blank as likely as all labels together, and these equally "
        "likely, which costs T ln 2 + U ln 2 (V - 1) - ln C(T + U - 1, U): "
        f"{fresh_rnnt_cost(SEED):.1f} nats at T = {SEED.frames}, U = {SEED.labels}. A blank is the "
        "commonest class of a lattice, so this is less than with classes equally likely, and less "
        "than CTC: that is why ratios at the start lie below 1.",
    )


def _range(ratios: Collection[float], bounds: tuple[float, float] | None = None) -> str:
    text = f"ratio {min(ratios):.3g} to {max(ratios):.3g}"
    if bounds is None:
        return f"{text}."
    low, high = bounds
    within = sum(low <= ratio <= high for ratio in ratios)
    count = "all" if within == len(ratios) else f"{within} of {len(ratios)}"
    return f"{text}, {count} within {low} to {high}."


def _remedied(measured: Start | Point) -> Pair:
    """The two numbers that MODE-SSM's authors compared after their remedy."""
    return Pair(measured.costs["labels"].ctc, measured.costs["seed_rule"].rnnt)


def _cost_table(starts: Collection[Start]) -> str:
    rows = []
    for start in starts:
        exact = uniform_costs(start.shape)
        rows.append([*_shape(start), *_pair(start.costs["none"], 1), *_pair(exact, 1)])
    header = ["T", "U", "CTC", "RNN-T", "ratio", "CTC, uniform", "RNN-T, uniform", "ratio, uniform"]
    text = "Nats an example, and where all classes are equally likely:\n\n"
    return text + table(header, rows) + "\n"


def _rule_table(starts: Collection[Start]) -> str:
    rows = []
    for start in starts:
        by_rule = [start.costs[rule] for rule in ("labels", "frames", "seed_rule")]
        costs = [f"{value:.3f}" for pair in by_rule for value in pair]
        rows.append(
            [*_shape(start), *costs, f"{_remedied(start).ratio:.3f}", *_pair(start.gradients, 4)]
        )
    text = (
        "By the other rules; MODE-SSM's divides by max(T / 2, 1), and its remedy compares RNN-T by "
        "that rule with CTC per label. Gradients are of the costs per frame:\n\n"
    )
    header = ["T", "U", "CTC / label", "RNN-T / label", "CTC / frame", "RNN-T / frame"]
    header += ["CTC, MODE-SSM's rule", "RNN-T, MODE-SSM's rule", "its remedy, ratio", *_GRADIENTS]
    return text + table(header, rows) + "\n"


def _course_findings(course: Course) -> str:
    logged = [(step, pair) for step, pair in course.curve if not math.isnan(pair.rnnt)]
    stages = ", ".join(f"{stage.name} from step {stage.begun}" for stage in course.stages)
    pairs = [(point.costs["frames"], point.gradients) for point in course.points]
    costs, gradients = ([x.ratio for x in kind] for kind in zip(*pairs, strict=True))
    lines = [
        f"Run and data: {course.name}.",
        f"Stages: {stages}. At step 0 the model is as it was initialised.",
        f"Checkpoints, on validation trials: {_range(costs, BALANCED)}",
        "By the other rules, at the same checkpoints: "
        + "; ".join(
            f"{name}, {_range([point.costs[rule].ratio for point in course.points], BALANCED)[:-1]}"
            for rule, name in _RULES.items()
        )
        + ". MODE-SSM's remedy: "
        + _range([_remedied(point).ratio for point in course.points], BALANCED),
        "Norms of the gradients with respect to the parameters that both reach (in "
        f"{', '.join(course.shared)}): {_range(gradients)}",
    ]
    if logged:
        step, pair = logged[0]
        lines.append(
            f"In training, as logged: first at step {step}, CTC {pair.ctc:.3f} and RNN-T "
            f"{pair.rnnt:.3f}; in all {_range([pair.ratio for _, pair in logged], BALANCED)}"
        )
    return _bullets(*lines)


def _course_table(course: Course) -> str:
    rows = [
        [str(point.step), point.stage, *_pair(point.costs["frames"], 4), *_pair(point.gradients, 4)]
        for point in course.points
    ]
    text = "Costs per frame on validation trials, and their gradients:\n\n"
    text += table(["step", "stage", "CTC", "RNN-T", "ratio", *_GRADIENTS], rows)
    rows = [
        [
            str(point.step),
            *(cell for rule in _RULES for cell in _pair(point.costs[rule], 3)),
            f"{_remedied(point).ratio:.3f}",
        ]
        for point in course.points
    ]
    header = [f"{cost}, {name}" for name in _RULES.values() for cost in ("CTC", "RNN-T", "ratio")]
    text += "\n\nBy the other rules; trials differ in length here, so ratios differ a little:\n\n"
    return text + table(["step", *header, "its remedy, ratio"], rows) + "\n"


def _bullets(*lines: str) -> str:
    return "".join(f"- {line}\n" for line in lines)


def _shape(start: Start) -> tuple[str, str]:
    return str(start.shape.frames), str(start.shape.labels)


def _pair(pair: Pair, digits: int) -> tuple[str, str, str]:
    return f"{pair.ctc:.{digits}f}", f"{pair.rnnt:.{digits}f}", f"{pair.ratio:.3f}"


def _draw_starts(axes: Axes, starts: Collection[Start], shares: Collection[float]) -> None:
    for place, share in enumerate(shares):
        color = _COLORS[place % len(_COLORS)]
        line = [s for s in starts if s.shape.labels == labels_at(share, s.shape.frames)]
        frames = [start.shape.frames for start in line]
        exact = [uniform_costs(start.shape).ratio for start in line]
        ratios = [start.ratio for start in line]
        axes.plot(frames, ratios, "o-", color=color, markersize=4, label=f"U / T = {share:g}")
        axes.plot(frames, exact, "--", color=color, linewidth=1)
    axes.plot([], [], "--", color="gray", linewidth=1, label="all classes equally likely")
    axes.set_xscale("log")
    axes.set_xticks(sorted({start.shape.frames for start in starts}))
    axes.minorticks_off()
    axes.xaxis.set_major_formatter("{x:g}")
    _dress(axes, "random initialisation", "frames T", "RNN-T / CTC")


def _draw_costs(axes: Axes, course: Course) -> None:
    for name, color in zip(Pair._fields, _COLORS, strict=False):
        label = "CTC" if name == "ctc" else "RNN-T"
        curve = [(step, getattr(pair, name)) for step, pair in course.curve]
        points = [(point.step, getattr(point.costs["frames"], name)) for point in course.points]
        axes.plot(*zip(*curve, strict=True), color=color, linewidth=1, label=f"{label}, training")
        axes.plot(*zip(*points, strict=True), "o", color=color, label=f"{label}, validation")
    axes.set_yscale("log")
    _borders(axes, course)
    _dress(axes, "costs along a run", "step", "nats, as normalised in training; per frame")


def _draw_ratio(axes: Axes, course: Course) -> None:
    curve = [(step, pair.ratio) for step, pair in course.curve]
    costs = [(point.step, point.costs["frames"].ratio) for point in course.points]
    gradients = [(point.step, point.gradients.ratio) for point in course.points]
    axes.plot(*zip(*curve, strict=True), color=_COLORS[0], linewidth=1, label="costs, training")
    axes.plot(*zip(*costs, strict=True), "o", color=_COLORS[0], label="costs, validation")
    axes.plot(*zip(*gradients, strict=True), "s", color=_COLORS[2], label="gradient norms")
    axes.set_yscale("log")
    _borders(axes, course)
    axes.axhspan(*BALANCED, color="#eeeeee", label=f"{BALANCED[0]} to {BALANCED[1]}", zorder=0)
    _dress(axes, "ratio along a run", "step", "RNN-T / CTC")


def _borders(axes: Axes, course: Course) -> None:
    for stage in course.stages:
        axes.axvline(stage.begun, color="#999999", linewidth=0.8, linestyle=":")
        axes.annotate(
            stage.name,
            (stage.begun, 0),
            xycoords=("data", "axes fraction"),
            xytext=(2, 2),
            textcoords="offset points",
            rotation=90,
            va="bottom",
            fontsize=8,
            color="gray",
        )


def _dress(axes: Axes, title: str, x: str, y: str) -> None:
    axes.set_title(title, fontsize=11)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#eeeeee")
    axes.set_axisbelow(True)
    axes.legend(fontsize=8, frameon=False, loc="upper right" if x == "step" else "best")
