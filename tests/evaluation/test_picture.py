"""The picture of a trial shows what was decoded when, and what of it is wrong."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from modessm_jax.data.hdf5 import Trial
from modessm_jax.evaluation.picture import axis_name, draw_trial, write_picture
from modessm_jax.evaluation.results import Example, TrialResult
from modessm_jax.phonemes import CLASSES, SILENCE, phoneme_id

STRIDE, CHANNELS = 4, 6
K, AE, T, S = (phoneme_id(symbol) for symbol in ("K", "AE", "T", "S"))
PATH = [0, K, K, 0, AE, AE, 0, S, SILENCE, 0]  # the best class of each frame
LABELS = [K, AE, T, SILENCE]


def example(labels: list[int] | None = LABELS, feasible: bool = True) -> Example:
    bins = STRIDE * len(PATH) - 1
    trial = Trial(
        session="t15.2023.08.11",
        block=1,
        number=4,
        file=Path("nowhere"),
        group="trial_0000",
        bins=bins,
        labels=None if labels is None else np.array(labels, np.int32),
        sentence=None if labels is None else "cat",
        corpus=None,
    )
    decoded = [K, AE, S, SILENCE]
    probabilities = np.full((len(PATH), CLASSES), 0.1 / (CLASSES - 1), np.float32)
    probabilities[np.arange(len(PATH)), PATH] = 0.9
    features = np.random.default_rng(0).normal(size=(bins, CHANNELS)).astype(np.float32)
    result = TrialResult(trial, decoded, len(PATH), 3.0, feasible)
    return Example(result, features, probabilities, STRIDE)


def drawn(shown: Example) -> dict[str, list[tuple[str, float, bool]]]:
    """Symbol, seconds and whether it is marked as wrong, by line of text."""
    figure = Figure()
    draw_trial(figure, shown)
    text = figure.axes[2]
    lines = [label.get_text() for label in text.get_yticklabels()]
    found = {line: [] for line in lines}
    for symbol in text.texts:
        x, y = symbol.get_position()
        wrong = symbol.get_color() == "#cc3311"
        found[lines[int(y)]].append((symbol.get_text(), round(float(x), 3), wrong))
    return found


def test_phonemes_stand_at_their_times_and_errors_are_red():
    found = drawn(example())
    # Frames of 80 ms: K in frames 1 and 2, AE in 4 and 5, S in 7, silence in 8.
    decoded = [("K", 0.16, False), ("AE", 0.4, False), ("S", 0.6, True), ("|", 0.68, False)]
    assert found["decoded"] == decoded
    assert [(symbol, wrong) for symbol, _, wrong in found["reference"]] == [
        ("K", False),
        ("AE", False),
        ("T", True),
        ("|", False),
    ]
    assert found["reference"][1][1] == 0.4


def test_what_is_left_out_or_added_is_red():
    found = drawn(example([K, AE, T, S, SILENCE]))
    assert [symbol for symbol, _, wrong in found["reference"] if wrong] == ["T"]
    assert not any(wrong for *_, wrong in found["decoded"])
    found = drawn(example([K, AE, SILENCE]))
    assert [symbol for symbol, _, wrong in found["decoded"] if wrong] == ["S"]


def test_labels_that_cannot_be_aligned_are_spread_evenly():
    labels = [K] * 8
    middles = [seconds for _, seconds, _ in drawn(example(labels, feasible=False))["reference"]]
    assert np.ptp(np.diff(middles)) < 2e-3
    assert 0 < middles[0] < middles[-1] < 0.08 * len(PATH)


def test_without_labels_there_is_no_reference_and_nothing_is_wrong():
    found = drawn(example(None))
    assert list(found) == ["decoded"]
    assert not any(wrong for *_, wrong in found["decoded"])


def test_the_title_holds_the_sentence_and_rows_are_phonemes_that_occur():
    figure = Figure()
    draw_trial(figure, example())
    assert figure.axes[0].get_title() == "t15.2023.08.11/block 1/trial 4: “cat”"
    rows = [label.get_text() for label in figure.axes[1].get_yticklabels()]
    assert rows == [axis_name(k) for k in sorted([K, AE, T, S, SILENCE])]
    assert rows[-1] == "SIL"


@pytest.mark.parametrize("labels", [LABELS, [], None])
def test_a_picture_is_written_whatever_there_is_to_show(tmp_path, labels):
    shown = example(labels)
    nothing = np.zeros_like(shown.probabilities)
    nothing[:, 0] = 1
    for place, one in enumerate((shown, dataclasses.replace(shown, probabilities=nothing))):
        path = tmp_path / "new folder" / f"{place}.png"
        write_picture(path, one)
        header = path.read_bytes()[:24]
        assert header[:8] == b"\x89PNG\r\n\x1a\n"
        size = int.from_bytes(header[16:20], "big"), int.from_bytes(header[20:24], "big")
        assert size == (1800, 1280)
