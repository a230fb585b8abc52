"""A picture of one decoded trial: features, phoneme probabilities, and what was decoded when."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure, SubFigure
from rapidfuzz.distance import Levenshtein

from modessm_jax.data.validation import BIN_SECONDS
from modessm_jax.decoding.ctc import align
from modessm_jax.evaluation.posteriors import best_path
from modessm_jax.evaluation.results import Example
from modessm_jax.phonemes import BLANK, SILENCE, SYMBOLS
from modessm_jax.runtime.files import replacing

_DECODED, _REFERENCE, _WRONG = "#0077bb", "#222222", "#cc3311"


def write_picture(path: str | Path, example: Example) -> None:
    """Draws a trial as PNG, 1800 by 1280 pixels, to be shown at half that size."""
    figure = Figure(figsize=(9, 6.4), dpi=200, layout="constrained")
    draw_trial(figure, example)
    with replacing(Path(path)) as partial:
        figure.savefig(partial, format="png")


def draw_trial(figure: Figure | SubFigure, example: Example) -> None:
    """Features over phoneme probabilities over phonemes, on one axis of seconds.

    A bar covers the frames of each phoneme: decoded, on the most likely path; of the reference, on
    its most likely alignment, or evenly spread where the frames are too few for one.
    """
    features, heat, text = figure.subplots(3, 1, sharex=True, height_ratios=[1, 2.6, 0.4])
    trial, probabilities = example.result.trial, example.probabilities
    limit = float(np.quantile(np.abs(example.features), 0.99)) or 1.0
    seconds = BIN_SECONDS * len(example.features)
    _show(features, example.features, seconds, cmap="PuOr_r", vmin=-limit, vmax=limit)
    sentence = "" if trial.sentence is None else f": “{trial.sentence}”"
    features.set_title(f"{trial.name}{sentence}", fontsize=10, wrap=True)
    features.set_ylabel("channel", fontsize=9)

    lines = _lines(example)
    rows = sorted({phoneme for line in lines for phoneme in line.ids}) or [BLANK]
    frame = BIN_SECONDS * example.stride
    _show(heat, probabilities[:, rows], frame * len(probabilities), cmap="Greys", vmin=0, vmax=1)
    heat.set_yticks(np.arange(len(rows)) + 0.5, [axis_name(row) for row in rows])
    title = "phoneme probabilities; bars: decoded blue, reference black, wrong red"
    heat.set_title(title, fontsize=9)
    for level, line in enumerate(lines):
        for place, (start, end) in enumerate(line.spans * frame):
            color, weight = (_WRONG, "bold") if place in line.wrong else (line.color, "normal")
            height = rows.index(line.ids[place]) + 0.1 + 0.8 * level
            heat.plot([start, end], [height, height], linewidth=2, color=color)
            # Neighbours on two heights, for they may be closer than a symbol is wide.
            x, y = (start + end) / 2, level + 0.35 + 0.3 * (place % 2)
            style = {"color": color, "weight": weight, "fontsize": 7, "ha": "center"}
            text.text(x, y, SYMBOLS[line.ids[place]].strip(), va="center", **style)
    text.set_ylim(len(lines), 0)
    text.set_yticks(np.arange(len(lines)) + 0.5, [line.name for line in lines])
    text.set_xlabel("seconds", fontsize=9)
    for axes in (features, heat, text):
        axes.tick_params(length=2, labelsize=8)


def axis_name(phoneme: int) -> str:
    """A phoneme as it stands on an axis or in a table."""
    return "SIL" if phoneme == SILENCE else SYMBOLS[phoneme]


def _show(axes: Any, values: Float[np.ndarray, "time rows"], seconds: float, **style: Any) -> None:
    extent = (0, seconds, values.shape[1], 0)
    axes.imshow(values.T, aspect="auto", interpolation="nearest", extent=extent, **style)


class _Line(NamedTuple):
    """Phonemes, first and one past the last frame of each, and the places of wrong ones."""

    name: str
    color: str
    ids: list[int]
    spans: np.ndarray
    wrong: set[int]


def _lines(example: Example) -> list[_Line]:
    """What was decoded, and the reference if there is one."""
    ids, spans = best_path(example.probabilities)
    decoded = ids.tolist()
    if example.result.trial.labels is None:
        return [_Line("decoded", _DECODED, decoded, spans, set())]
    reference = example.result.reference
    edits = Levenshtein.editops(reference, decoded)
    added = {edit.dest_pos for edit in edits if edit.tag != "delete"}
    missed = {edit.src_pos for edit in edits if edit.tag != "insert"}
    if example.result.feasible:
        scores = np.log(np.maximum(example.probabilities, np.finfo(np.float32).tiny))
        aligned = align(scores, np.array(reference, int)) + np.array([0, 1])
    else:
        edges = np.linspace(0, len(example.probabilities), len(reference) + 1)
        aligned = np.stack([edges[:-1], edges[1:]], axis=1)
    return [
        _Line("decoded", _DECODED, decoded, spans, added),
        _Line("reference", _REFERENCE, reference, aligned, missed),
    ]
