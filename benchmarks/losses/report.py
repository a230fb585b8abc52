"""The findings as tables and a picture."""

from collections.abc import Callable, Iterable
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from benchmarks.losses.measure import Spread
from benchmarks.losses.parts import Findings, Row
from benchmarks.losses.problems import Kind
from benchmarks.losses.xla import OURS

TITLES: dict[Kind, str] = {
    "ctc": "CTC: logits to cost and gradient",
    "rnnt": "RNN-T: logits to cost and gradient",
    "joint": "Joint network and RNN-T: encoder and predictor to cost and all gradients",
}
COLUMNS = (
    "B, T, U, V", "implementation", "ms, median", "quartiles", "times ours", "quartiles",
    "peak memory, MB", "XLA temporaries, MB", "difference from ours",
)  # fmt: skip
NONE = "-"


def write(path: Path, findings: Findings) -> str:
    """Writes PATH.md and PATH.png; returns the text."""
    text = "\n\n".join(_sections(findings)) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_suffix(".md").write_text(text, encoding="utf-8")
    draw(path.with_suffix(".png"), findings)
    return text


def _sections(findings: Findings) -> Iterable[str]:
    yield "\n".join(f"- {name}: {value}" for name, value in findings.about.items())
    for kind, title in TITLES.items():
        rows = [row for row in findings.rows if row.kind == kind]
        if rows:
            yield f"## {title}"
            yield table(COLUMNS, map(_line, rows))
    if findings.agreement:
        yield "## Difference from ours on examples of unequal length"
        yield table(
            ("loss", "B, T, U, V", "implementation", "largest relative difference"),
            ((r.kind, str(r.shape), r.name, f"{r.difference:.1e}") for r in findings.agreement),
        )
    if findings.growth:
        yield "## Growth"
        yield table(
            ("loss", "at", "axis", "sizes", "ms", "fitted exponent"),
            (
                (
                    g.kind,
                    str(g.base),
                    g.axis,
                    ", ".join(map(str, g.sizes)),
                    ", ".join(milliseconds(seconds) for seconds in g.seconds),
                    f"{g.exponent:.2f}",
                )
                for g in findings.growth
            ),
        )
    if findings.compilation:
        frames = next(iter(findings.compilation.values()))
        yield "## Seconds to trace and compile, B = 8, U = 30, V = 41"
        yield table(
            ("loss", "implementation", *(f"T = {count}" for count in frames)),
            (
                (kind, name, *(f"{value:.2f}" for value in seconds.values()))
                for (kind, name), seconds in findings.compilation.items()
            ),
        )
    if findings.absent:
        yield "## Not measured"
        yield table(("implementation", "why"), findings.absent.items())


def table(head: Iterable[str], lines: Iterable[Iterable[str]]) -> str:
    """A Markdown table."""
    head = list(head)
    rows = [head, ["---"] * len(head), *lines]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def milliseconds(seconds: float) -> str:
    """Three significant digits."""
    value = seconds * 1000
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _line(row: Row) -> list[str]:
    return [
        str(row.shape),
        row.name,
        NONE if row.seconds is None else milliseconds(row.seconds.median),
        *_range(row.seconds, milliseconds),
        NONE if row.ratio is None else f"{row.ratio.median:.2f}",
        *_range(row.ratio, "{:.2f}".format),
        _megabytes(row.memory.peak),
        _megabytes(row.memory.temporary),
        NONE if row.difference is None else f"{row.difference:.1e}",
    ]


def _range(found: Spread | None, show: Callable[[float], str]) -> list[str]:
    return [NONE if found is None else f"{show(found.lower)} to {show(found.upper)}"]


def _megabytes(count: int | None) -> str:
    return NONE if count is None else f"{count / 1e6:.1f}"


def draw(path: Path, findings: Findings) -> None:
    """Times relative to ours, one panel a loss; below, seconds along each axis."""
    kinds = [kind for kind in TITLES if any(row.kind == kind for row in findings.rows)]
    grown = list(dict.fromkeys(growth.kind for growth in findings.growth))
    if not kinds and not grown:
        return
    width = max(len(kinds), len(grown))
    lines = bool(kinds) + bool(grown)
    figure = Figure(figsize=(5 * width, 4 * lines), dpi=100, layout="constrained")
    panels = iter(figure.subplots(lines, width, squeeze=False))
    if kinds:
        for axes, kind in zip(next(panels), kinds + [None] * (width - len(kinds)), strict=True):
            if kind is None:
                axes.set_axis_off()
            else:
                _draw_ratios(axes, kind, findings)
    if grown:
        for axes, kind in zip(next(panels), grown + [None] * (width - len(grown)), strict=True):
            if kind is None:
                axes.set_axis_off()
            else:
                _draw_growth(axes, kind, findings)
    figure.savefig(path)


def _short(kind: Kind) -> str:
    return TITLES[kind].partition(":")[0].partition(",")[0]


def _draw_ratios(axes: Axes, kind: Kind, findings: Findings) -> None:
    rows = [row for row in findings.rows if row.kind == kind and row.ratio and row.name != OURS]
    for place, row in enumerate(reversed(rows)):
        assert row.ratio is not None
        median, lower, upper = row.ratio
        axes.barh(place, median, xerr=[[median - lower], [upper - median]], color="#88aadd")
        axes.text(upper, place, f" {median:.1f}", va="center", fontsize=8)
    axes.set_yticks(range(len(rows)), [f"{row.name}\n{row.shape}" for row in reversed(rows)])
    axes.tick_params(axis="y", labelsize=7)
    axes.axvline(1, color="black", linewidth=1)
    ratios = [row.ratio for row in rows if row.ratio]
    axes.set_xscale("log")
    axes.set_xlim(
        0.7 * min([1.0, *(ratio.lower for ratio in ratios)]),
        1.7 * max([1.0, *(ratio.upper for ratio in ratios)]),
    )
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel(f"seconds over {OURS}'s (quartiles)")
    axes.set_title(_short(kind), fontsize=11)


def _draw_growth(axes: Axes, kind: Kind, findings: Findings) -> None:
    for growth in findings.growth:
        if growth.kind == kind:
            axes.plot(
                [size / growth.sizes[0] for size in growth.sizes],
                [seconds * 1000 for seconds in growth.seconds],
                marker="o",
                markersize=3,
                label=f"{growth.axis} from {growth.sizes[0]}: exponent {growth.exponent:.2f}",
            )
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xlabel("size, relative to the smallest")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_ylabel("ms")
    axes.grid(color="#eeeeee", which="both")
    axes.legend(fontsize=8, frameon=False)
    axes.set_title(f"growth, {_short(kind)}", fontsize=11)
