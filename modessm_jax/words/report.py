"""A word evaluation as a table for the terminal and a picture with the worst sentences."""

import math
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from modessm_jax.data.recordings import unscored
from modessm_jax.evaluation.report import columns
from modessm_jax.text import percent
from modessm_jax.words.results import GREEDY, NO_SENTENCES, WordEvaluation, WordResult, aligned

_RIGHT, _WRONG, _BAR, _BASELINE = "#222222", "#cc3311", "#4477aa", "#bbbbbb"
_WORST, _CONFUSIONS, _NAMED = 8, 8, 8
_LETTERS_A_LINE = 78
_NO_WORD = "***"


def format_words(evaluation: WordEvaluation) -> str:
    """The evaluation as text for a terminal: in all, by group, and the worst sentences.

    Wrong words are in capitals, in the reference too; stars mark a missing word.
    """
    title = (
        f"{evaluation.split} split, {len(evaluation.results)} sentences, "
        f"{evaluation.frames_a_second:,.0f} frames a second on one core"
    )
    if not evaluation.labelled:
        return "\n".join([title, *evaluation.notes, NO_SENTENCES])
    parts = [title, *evaluation.notes, _table(evaluation)]
    if evaluation.without_sentence:
        parts.append(unscored(evaluation.without_sentence, len(evaluation.results)))
    missing = evaluation.out_of_vocabulary
    if missing:
        named = ", ".join(f"{word} ({count})" for word, count in missing.most_common(_NAMED))
        more = ", ..." if len(missing) > _NAMED else ""
        words = sum(len(result.reference.split()) for result in evaluation.scored)
        parts.append(
            f"out of vocabulary: {missing.total()} of {words} words, {len(missing)} different: "
            f"{named}{more}"
        )
    confused = evaluation.confusions.most_common(_CONFUSIONS)
    if confused:
        pairs = [f"{a or _NO_WORD} > {b or _NO_WORD} ({n})" for (a, b), n in confused]
        parts.append(f"most often wrong: {', '.join(pairs)}")
    for result in evaluation.worst[:_WORST]:
        parts.append(f"\n{result.trial.name}: {result.edits.count} wrong")
        parts += ["  ".join(line).rstrip() for line in _side_by_side(result)]
    return "\n".join(parts)


def write_word_report(path: str | Path, evaluation: WordEvaluation) -> None:
    """Draws word error rates with their intervals, and the worst sentences, 1600 pixels wide.

    Raises:
        ValueError: the split has no sentences to compare with.
    """
    rows = evaluation.figures()
    figure = Figure(figsize=(16, max(6, 2.5 + 0.28 * len(rows))), dpi=100, layout="constrained")
    everything = rows["all"]
    figure.suptitle(
        f"{evaluation.split}: word error rate {percent(everything['wer'])}"
        f"{_interval(everything, ' (95 % interval {} to {})')}, {everything['sentences']} "
        f"sentences\n" + "\n".join(evaluation.notes),
        fontsize=10,
    )
    rates, sentences = figure.subplots(1, 2, width_ratios=[1, 1.5])
    _draw_rates(rates, rows)
    _draw_worst(sentences, evaluation)
    figure.savefig(path, format="png")


def _table(evaluation: WordEvaluation) -> str:
    header = ["", "sentences", "words", "WER", "95 % interval", "mean", "sub", "ins", "del"]
    header += ["wrong sentences", "oracle WER"]
    rows = [
        [
            name,
            str(row["sentences"]),
            str(row["words"]),
            percent(row["wer"]),
            _interval(row, "{} to {}") or "-",
            percent(row["mean_of_sentences"]),
            *(str(row[key]) for key in ("substitutions", "insertions", "deletions")),
            percent(row["sentence_error_rate"]),
            percent(row.get("oracle_wer")),
        ]
        for name, row in evaluation.figures().items()
    ]
    return columns(header, rows)


def _interval(row: dict[str, Any], form: str) -> str:
    return "" if row["interval"] is None else form.format(*map(percent, row["interval"]))


def _side_by_side(result: WordResult) -> tuple[list[str], list[str]]:
    """The words of reference and hypothesis, padded so that aligned words are in one column."""
    above, below = ["reference"], ["decoded  "]
    for reference, decoded in aligned(result):
        if reference != decoded:
            reference, decoded = reference.upper() or _NO_WORD, decoded.upper() or _NO_WORD
        width = max(len(reference), len(decoded))
        above.append(reference.ljust(width))
        below.append(decoded.ljust(width))
    return above, below


def _draw_rates(axes: Axes, rows: dict[str, dict[str, Any]]) -> None:
    known = {name: row for name, row in rows.items() if row["wer"] is not None}
    for place, (name, row) in enumerate(known.items()):
        rate, (low, high) = 100 * row["wer"], (100 * value for value in row["interval"])
        color = _BASELINE if name == GREEDY else _BAR
        # An interval of resamples need not hold the rate itself.
        reach = [[max(rate - low, 0)], [max(high - rate, 0)]]
        axes.barh(place, rate, color=color, xerr=reach, ecolor=_RIGHT, capsize=3)
    labels = [f"{name} ({row['words']} words)" for name, row in known.items()]
    axes.set_yticks(range(len(known)), labels, fontsize=9)
    axes.invert_yaxis()
    axes.set_xlabel("word error rate, %, with 95 % interval", fontsize=9)
    axes.set_xlim(left=0)
    axes.spines[["top", "right"]].set_visible(False)


def _draw_worst(axes: Axes, evaluation: WordEvaluation) -> None:
    """Reference over hypothesis, word by word; wrong words in red."""
    axes.axis("off")
    axes.set_title("worst sentences: reference, and decoded", fontsize=11)
    lines = []
    for result in evaluation.worst[:_WORST]:
        lines.append([(result.trial.name, _BASELINE)])
        lines += _colored(result)
    rows = max(len(lines), 16)
    for row, words in enumerate(lines):
        start = 0
        for word, color in words:
            x, y = start / _LETTERS_A_LINE, 1 - (row + 0.5) / rows
            axes.text(x, y, word, color=color, fontsize=9, family="monospace", clip_on=True)
            start += len(word) + 1
    if not lines:
        axes.text(0.5, 0.5, "none: every word is right", ha="center", color="gray")


def _colored(result: WordResult) -> list[list[tuple[str, str]]]:
    """Lines of (padded word, colour), reference and hypothesis in turn, at most so long."""
    lines: list[list[tuple[str, str]]] = []
    room = -math.inf
    for reference, decoded in aligned(result):
        width = max(len(reference), len(decoded), len(_NO_WORD))
        if room < width:
            lines += [[], []]
            room = _LETTERS_A_LINE
        room -= width + 1
        color = _RIGHT if reference == decoded else _WRONG
        lines[-2].append(((reference or _NO_WORD).ljust(width), color))
        lines[-1].append(((decoded or _NO_WORD).ljust(width), color))
    return lines
