"""A run's report: one picture for a file and one table for a terminal."""

import json
from collections.abc import Sequence as Collection
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter

from modessm_jax.evaluation.picture import axis_name, draw_trial
from modessm_jax.evaluation.results import NO_LABELS, Evaluation
from modessm_jax.phonemes import BLANK, CLASSES, SILENCE
from modessm_jax.text import percent

_TRAIN, _VAL, _THIRD, _FAINT = "#4477aa", "#cc3311", "#228833", "#bbbbbb"
_SCALES = (_TRAIN, _VAL, _THIRD, "#aa3377", "#ccbb44")
_TICKS: dict[str, Any] = {"labelsize": 9, "length": 3}
_LEGEND: dict[str, Any] = {"fontsize": 9, "frameon": False}
_MARKED: dict[str, Any] = {"marker": "o", "markersize": 3}
_WORST = 8


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


# Of the table: where a column comes from, and how it is printed.
_COLUMNS = {
    "trials": ("trials", str),
    "PER": ("per", percent),
    "PER no silence": ("per_no_silence", percent),
    "sub": ("substitutions", str),
    "ins": ("insertions", str),
    "del": ("deletions", str),
    "phonemes": ("reference_phonemes", str),
    "nats/label": ("nats_per_label", _number),
    "RNN-T PER": ("rnnt_per", percent),
}
_UNLABELLED = {"trials": ("trials", str), "decoded phonemes": ("decoded_phonemes", str)}
_RATES = {
    "per": "PER",
    "wer": "WER",
    "rnnt_per": "RNN-T PER",
    "rnnt_wer": "RNN-T WER",
    "damaged_rnnt_per": "damaged, RNN-T PER",
    "mended_rnnt_per": "denoised, RNN-T PER",
}

Records = Collection[dict[str, Any]]


def write_report(path: str | Path, metrics: str | Path, evaluation: Evaluation, best: int) -> None:
    """Draws a run's curves and its evaluation, 1600 by 1200 pixels.

    Args:
      path: PNG to write.
      metrics: the run's `metrics.jsonl`; what it does not hold is left blank.
      evaluation: of a split with labels.
      best: the step whose model was kept.

    Raises:
      ValueError: the split has no labels.
    """
    if not evaluation.labelled:
        raise ValueError(f"{evaluation.split}: {NO_LABELS}; draw the report of a labelled split")
    lines = Path(metrics).read_text(encoding="utf-8").splitlines()
    records = [json.loads(line) for line in lines]
    figure = Figure(figsize=(16, 12), dpi=100, layout="constrained")
    figure.suptitle(_headline(evaluation), fontsize=13)
    rows: Any = figure.subfigures(2, 1, height_ratios=[1, 2.3])
    curves, pictures = rows
    left, right = pictures.subfigures(1, 2, width_ratios=[1.12, 1])
    loss, rate, step, norms = curves.subplots(1, 4)
    _draw_loss(loss, records)
    _draw_error_rate(rate, records, best)
    _draw_optimiser(step, records)
    _draw_norms(norms, records)
    draw_trial(left, evaluation.example)
    _draw_confusion(right.subplots(), evaluation)
    figure.savefig(path, format="png")


def _headline(evaluation: Evaluation) -> str:
    found = evaluation.to_dict()
    text = f"{evaluation.split}: PER {percent(found['per'])}"
    if evaluation.interval is not None:
        low, high = evaluation.interval
        text += f" (95 % interval {percent(low)} to {percent(high)})"
    return (
        f"{text}, without silence {percent(found['per_no_silence'])}, "
        f"{_number(found['nats_per_label'])} nats per label, {found['trials']} trials"
    )


def format_table(evaluation: Evaluation) -> str:
    """The evaluation as text for a terminal: in all, by corpus, by session, the worst phonemes."""
    found = evaluation.to_dict()
    title = f"{evaluation.split} split, {found['trials']} trials, {evaluation.seconds:.1f} s"
    table = _COLUMNS if evaluation.labelled else _UNLABELLED
    shown = {name: of for name, of in table.items() if of[0] in found}
    named = [("all", found), *found.get("corpora", {}).items(), *found["sessions"].items()]
    rows = [[name, *(form(row[key]) for key, form in shown.values())] for name, row in named]
    parts = [title, columns(["", *shown], rows)]
    if lost := evaluation.nonfinite:
        trials = f"{len(lost)} trial{'s' * (len(lost) > 1)}: {', '.join(lost[:_WORST])}"
        parts.append(f"the model's output is not finite for {trials}")
    if not evaluation.labelled:
        return "\n".join([*parts, NO_LABELS])
    if evaluation.interval is not None:
        low, high = evaluation.interval
        parts.append(f"95 % interval of the PER over trials: {percent(low)} to {percent(high)}")
    worst = [f"{axis_name(k)} {percent(rate)} of {n}" for k, n, rate in evaluation.by_phoneme()]
    parts.append(f"most often wrong: {', '.join(worst[:_WORST])}")
    if evaluation.infeasible:
        names = ", ".join(evaluation.infeasible)
        parts.append(f"too few frames for the labels (left out of nats): {names}")
    return "\n".join(parts)


def format_stages(stages: Collection[dict[str, Any]]) -> str:
    """Each stage of a run, and the error rates on val with which it ended.

    Where the flow bridge trained, also those of damaged recordings, without it and with it.

    Args:
      stages: as in the run's `results.json`.
    """
    rates = [key for key in _RATES if any(key in stage["end"] for stage in stages)]
    rows = []
    for stage in stages:
        name, end = stage["name"], stage["end"]
        rows.append([name, str(end["step"]), *(percent(end.get(key)) for key in rates)])
    return columns(["stage", "until step", *(_RATES[key] for key in rates)], rows)


def columns(header: list[str], rows: list[list[str]]) -> str:
    """Aligns a table: names to the left, figures to the right."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    lines = []
    for row in [header, *rows]:
        cells = [cell.rjust(width) for cell, width in zip(row, widths, strict=True)]
        lines.append("  ".join([row[0].ljust(widths[0]), *cells[1:]]).rstrip())
    return "\n".join(lines)


def _plot(axes: Axes, records: Records, key: str, factor: float = 1.0, **style: Any) -> dict:
    """Plots what was logged under a key; of a step that was logged twice, the later value."""
    curve = {record["step"]: record[key] for record in records if key in record}
    curve = dict(sorted(curve.items()))
    axes.plot(list(curve), [factor * value for value in curve.values()], **style)
    return curve


def _dress(axes: Axes, title: str, label: str) -> None:
    axes.set_title(title, fontsize=11)
    axes.set_xlabel("step", fontsize=9)
    axes.set_ylabel(label, fontsize=9)
    axes.tick_params(**_TICKS)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#eeeeee")
    axes.set_axisbelow(True)


def _draw_loss(axes: Axes, records: Records) -> None:
    _dress(axes, "phoneme CTC loss", "nats, as normalised in training")
    evaluations = [record for record in records if "per" in record]
    _plot(axes, records, "loss/phoneme", color=_TRAIN, linewidth=1, label="training")
    _plot(axes, evaluations, "loss", color=_VAL, label="validation", **_MARKED)
    axes.legend(**_LEGEND)


def _draw_error_rate(axes: Axes, records: Records, best: int) -> None:
    _dress(axes, "validation phoneme error rate", "%")
    rates = _plot(axes, records, "per", 100.0, color=_VAL, label="with silence", **_MARKED)
    if best in rates:
        axes.axhline(100 * rates[best], color=_VAL, linewidth=0.7, linestyle=":")
        axes.plot([], [], " ", label=f"best model {percent(rates[best])}, step {best}")
    names = {"per_no_silence": ("without silence", _FAINT), "rnnt_per": ("transducer", _TRAIN)}
    for key, (label, color) in names.items():
        if any(key in record for record in records):
            _plot(axes, records, key, 100.0, color=color, label=label, **_MARKED)
    axes.set_ylim(bottom=0)
    axes.legend(**_LEGEND)


def _draw_optimiser(axes: Axes, records: Records) -> None:
    _dress(axes, "learning rate and gradient norm", "learning rate")
    _plot(axes, records, "learning_rate", color=_TRAIN)
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.yaxis.label.set_color(_TRAIN)
    other = axes.twinx()
    _plot(other, records, "gradient_norm", color=_THIRD, linewidth=0.8, alpha=0.8)
    other.set_yscale("log")
    other.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    other.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    other.yaxis.set_minor_formatter(NullFormatter())
    other.set_ylabel("gradient norm before clipping", fontsize=9, color=_THIRD)
    other.tick_params(**_TICKS)
    other.spines["top"].set_visible(False)


def _draw_norms(axes: Axes, records: Records) -> None:
    _dress(axes, "encoder norms by scale", "norm")
    keys = dict.fromkeys(key for record in records for key in record if "norm/" in key)
    for key, color in zip(keys, _SCALES, strict=False):
        _plot(axes, records, key, color=color, label=key.rpartition("/")[2])
    axes.set_ylim(bottom=0)
    if keys:
        axes.legend(**_LEGEND)
    else:
        axes.text(0.5, 0.5, "not recorded", ha="center", color="gray", transform=axes.transAxes)


def _draw_confusion(axes: Axes, evaluation: Evaluation) -> None:
    counts = evaluation.confusion
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    # Square root: confusions of a few percent must be visible beside a diagonal near 1.
    axes.imshow(
        np.sqrt(shares), aspect="auto", cmap="Blues", vmin=0, vmax=1, interpolation="nearest"
    )
    names = [axis_name(phoneme) for phoneme in range(CLASSES)]
    axes.set_xticks(range(len(names)), ["deleted", *names[1:]], fontsize=7.5, rotation=90)
    axes.set_yticks(range(len(names)), ["inserted", *names[1:]], fontsize=7.5)
    axes.tick_params(length=2)
    axes.set_xlabel("decoded", fontsize=9)
    axes.set_ylabel("reference", fontsize=9)
    edits = evaluation.edits
    axes.set_title(
        f"{edits.substitutions} substituted, {edits.insertions} inserted, {edits.deletions} deleted"
        f" of {edits.reference_length} phonemes (rows sum to 1; shade: square root)",
        fontsize=10,
    )
    for edge in np.arange(len(names) - 1) + 0.5:
        width = 1.0 if edge in (BLANK + 0.5, SILENCE - 0.5) else 0.3
        axes.axhline(edge, color=_FAINT, linewidth=width)
        axes.axvline(edge, color=_FAINT, linewidth=width)
