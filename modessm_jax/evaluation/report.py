"""A run at a glance: one picture and one table."""

import json
from collections.abc import Sequence as Collection
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter

from modessm_jax.decoding.ctc import align, timing
from modessm_jax.evaluation.results import NO_LABELS, Evaluation, Example
from modessm_jax.losses.ctc import ctc_posteriors
from modessm_jax.phonemes import BLANK, SILENCE, SYMBOLS
from modessm_jax.sequence import Sequence
from modessm_jax.text import percent

BIN_SECONDS = 0.02
_INCHES, _DOTS_PER_INCH = (16, 12), 100
_TRAIN, _VAL, _THIRD, _FAINT = "#4477aa", "#cc3311", "#228833", "#bbbbbb"
_SCALES = (_TRAIN, _VAL, _THIRD, "#aa3377", "#ccbb44")
_TICKS: dict[str, Any] = {"labelsize": 9, "length": 3}
_WORST = 8
_RATES = {
    "per": "PER",
    "wer": "WER",
    "rnnt_per": "RNN-T PER",
    "rnnt_wer": "RNN-T WER",
    "damaged_rnnt_per": "damaged, RNN-T PER",
    "mended_rnnt_per": "mended, RNN-T PER",
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
    figure = Figure(figsize=_INCHES, dpi=_DOTS_PER_INCH, layout="constrained")
    figure.suptitle(_headline(evaluation), fontsize=13)
    rows: Any = figure.subfigures(2, 1, height_ratios=[1, 2.3])
    curves, pictures = rows
    left, right = pictures.subfigures(1, 2, width_ratios=[1.12, 1])
    loss, rate, step, norms = curves.subplots(1, 4)
    _draw_loss(loss, records)
    _draw_error_rate(rate, records, best)
    _draw_optimiser(step, records)
    _draw_norms(norms, records)
    _draw_example(left, evaluation.example)
    _draw_confusion(right.subplots(), evaluation)
    figure.savefig(path, format="png")


def format_table(evaluation: Evaluation) -> str:
    """The evaluation as text for a terminal: in all, by corpus, by session, the worst phonemes."""
    found = evaluation.to_dict()
    title = f"{evaluation.split} split, {found['trials']} trials, {evaluation.seconds:.1f} s"
    if not evaluation.labelled:
        rows = [
            [name, str(row["trials"]), str(row["decoded_phonemes"])]
            for name, row in [*found["sessions"].items(), ("all", found)]
        ]
        table = columns(["session", "trials", "decoded phonemes"], rows)
        return f"{title}\n{NO_LABELS}\n{table}"
    header = ["", "trials", "PER", "PER no silence", "sub", "ins", "del", "phonemes", "nats/label"]
    if "rnnt_per" in found:
        header.append("RNN-T PER")
    rows = [_row("all", found)]
    rows += [_row(name, row) for name, row in found["corpora"].items()]
    rows += [_row(name, row) for name, row in found["sessions"].items()]
    parts = [title, columns(header, rows)]
    if evaluation.interval is not None:
        low, high = evaluation.interval
        parts.append(f"95 % interval of the PER over trials: {percent(low)} to {percent(high)}")
    worst = [f"{_name(s)} {percent(rate)} of {n}" for s, n, rate in evaluation.by_phoneme()]
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
    rows = [
        [
            stage["name"],
            str(stage["end"]["step"]),
            *(percent(stage["end"].get(key)) for key in rates),
        ]
        for stage in stages
    ]
    return columns(["stage", "until step", *(_RATES[key] for key in rates)], rows)


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


def _row(name: str, row: dict[str, Any]) -> list[str]:
    counts = (row[key] for key in ("substitutions", "insertions", "deletions"))
    return [
        name,
        str(row["trials"]),
        percent(row["per"]),
        percent(row["per_no_silence"]),
        *map(str, counts),
        str(row["reference_phonemes"]),
        _number(row["nats_per_label"]),
        *([percent(row["rnnt_per"])] if "rnnt_per" in row else []),
    ]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def columns(header: list[str], rows: list[list[str]]) -> str:
    """Aligns a table: names to the left, figures to the right."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    lines = []
    for row in [header, *rows]:
        cells = [cell.rjust(width) for cell, width in zip(row, widths, strict=True)]
        lines.append("  ".join([row[0].ljust(widths[0]), *cells[1:]]).rstrip())
    return "\n".join(lines)


def _name(symbol: str) -> str:
    """A symbol as it stands on an axis."""
    return "SIL" if symbol == SYMBOLS[SILENCE] else symbol


def _curve(records: Records, key: str) -> tuple[list[int], list[float]]:
    found = {record["step"]: record[key] for record in records if key in record}
    steps = sorted(found)
    return steps, [found[step] for step in steps]


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
    training = [record for record in records if "learning_rate" in record]
    evaluations = [record for record in records if "per" in record]
    _dress(axes, "phoneme CTC loss", "nats, as normalised in training")
    axes.plot(*_curve(training, "loss/phoneme"), color=_TRAIN, linewidth=1, label="training")
    axes.plot(
        *_curve(evaluations, "loss"), color=_VAL, marker="o", markersize=3, label="validation"
    )
    axes.legend(fontsize=9, frameon=False)


def _draw_error_rate(axes: Axes, records: Records, best: int) -> None:
    _dress(axes, "validation phoneme error rate", "%")
    for key, label, color in (
        ("per", "with silence", _VAL),
        ("per_no_silence", "without silence", _FAINT),
        ("rnnt_per", "transducer", _TRAIN),
    ):
        steps, rates = _curve(records, key)
        if key == "rnnt_per" and not rates:
            continue  # most models are no transducers
        axes.plot(steps, 100 * np.array(rates), color=color, marker="o", markersize=3, label=label)
        if key == "per" and best in steps:
            kept = rates[steps.index(best)]
            axes.axhline(100 * kept, color=_VAL, linewidth=0.7, linestyle=":")
            axes.plot([], [], " ", label=f"best model {percent(kept)}, step {best}")
    axes.set_ylim(bottom=0)
    axes.legend(fontsize=9, frameon=False)


def _draw_optimiser(axes: Axes, records: Records) -> None:
    _dress(axes, "learning rate and gradient norm", "learning rate")
    axes.plot(*_curve(records, "learning_rate"), color=_TRAIN)
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.yaxis.label.set_color(_TRAIN)
    other = axes.twinx()
    other.plot(*_curve(records, "gradient_norm"), color=_THIRD, linewidth=0.8, alpha=0.8)
    other.set_yscale("log")
    other.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    other.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    other.yaxis.set_minor_formatter(NullFormatter())
    other.set_ylabel("gradient norm before clipping", fontsize=9, color=_THIRD)
    other.tick_params(**_TICKS)
    other.spines["top"].set_visible(False)


def _draw_norms(axes: Axes, records: Records) -> None:
    _dress(axes, "encoder norms by scale", "norm")
    keys = {key: None for record in records for key in record if "norm/" in key}
    for key, color in zip(keys, _SCALES, strict=False):
        axes.plot(*_curve(records, key), color=color, label=key.rpartition("/")[2])
    axes.set_ylim(bottom=0)
    if keys:
        axes.legend(fontsize=9, frameon=False)
    else:
        axes.text(0.5, 0.5, "not recorded", ha="center", color="gray", transform=axes.transAxes)


def _draw_example(figure: SubFigure, example: Example) -> None:
    """Features over phoneme probabilities, and where the labels were spoken.

    A line on the frames of the best alignment; a point with its deviation over all alignments.
    """
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[1, 2.4])
    seconds = BIN_SECONDS * len(example.features)
    probabilities = example.probabilities
    shown = np.asarray(example.features.T)
    limit = float(np.quantile(np.abs(shown), 0.99)) or 1.0
    above.imshow(
        shown,
        aspect="auto",
        cmap="RdBu_r",
        vmin=-limit,
        vmax=limit,
        extent=(0, seconds, len(shown), 0),
        interpolation="nearest",
    )
    above.set_title(example.result.trial.name, fontsize=11)
    above.set_ylabel("channel", fontsize=9)
    above.tick_params(**_TICKS)
    below.imshow(
        probabilities.T,
        aspect="auto",
        cmap="Greys",
        vmin=0,
        vmax=1,
        extent=(0, seconds, len(SYMBOLS) - 0.5, -0.5),
        interpolation="nearest",
    )
    below.set_yticks(range(len(SYMBOLS)), [_name(symbol) for symbol in SYMBOLS], fontsize=7.5)
    below.set_xlabel("seconds", fontsize=9)
    below.tick_params(axis="x", **_TICKS)
    below.tick_params(axis="y", length=2)
    labels = example.result.reference
    width = seconds / max(len(probabilities), 1)
    for label, (start, end) in zip(labels, _spans(example), strict=True):
        middle = (start + end + 1) / 2 * width
        below.plot([start * width, (end + 1) * width], [label, label], color=_VAL, linewidth=1.2)
        below.annotate(
            _name(SYMBOLS[label]),
            (middle, label),
            xytext=(0, 5),
            textcoords="offset points",
            ha="center",
            fontsize=7.5,
            color=_VAL,
        )
    if example.result.feasible and labels:
        mean, deviation = timing(_posteriors(example))
        below.errorbar(
            (mean + 0.5) * width,
            labels,
            xerr=deviation * width,
            fmt=".",
            color=_TRAIN,
            markersize=3,
        )
    decoded = " ".join(_name(SYMBOLS[k]) for k in example.result.phonemes)
    reference = " ".join(_name(SYMBOLS[k]) for k in labels)
    below.set_title(
        f"labels (red, aligned): {reference}\ndecoded: {decoded}", fontsize=8, loc="left", wrap=True
    )


def _posteriors(example: Example) -> np.ndarray:
    """The soft alignment of the labels, [frames, labels]."""
    scores = np.log(np.maximum(example.probabilities, np.finfo(np.float32).tiny))[None]
    ids = np.array([example.result.reference], np.int32)
    logits = Sequence(jnp.asarray(scores), jnp.ones(scores.shape[:2], bool))
    labels = Sequence(jnp.asarray(ids), jnp.ones(ids.shape, bool))
    return np.asarray(ctc_posteriors(logits, labels))[0]


def _spans(example: Example) -> np.ndarray:
    """First and last frame of each label; evenly spread where the labels cannot be aligned."""
    probabilities, labels = example.probabilities, example.result.reference
    if example.result.feasible:
        tiny = np.finfo(np.float32).tiny
        return align(np.log(np.maximum(probabilities, tiny)), np.array(labels, np.int64))
    frames = len(probabilities) * (np.arange(len(labels)) + 0.5) / len(labels)
    return np.stack([frames, frames], axis=1)


def _draw_confusion(axes: Axes, evaluation: Evaluation) -> None:
    counts = evaluation.confusion
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    # Square root: confusions of a few percent must be visible beside a diagonal near 1.
    axes.imshow(
        np.sqrt(shares), aspect="auto", cmap="Blues", vmin=0, vmax=1, interpolation="nearest"
    )
    names = [_name(symbol) for symbol in SYMBOLS]
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
