"""The report draws what it is given, whole or in part, and prints the figures of the evaluation."""

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from modessm_jax.data.hdf5 import Trial
from modessm_jax.evaluation.picture import axis_name
from modessm_jax.evaluation.report import (
    _draw_error_rate,
    format_stages,
    format_table,
    write_report,
)
from modessm_jax.evaluation.results import Evaluation, Example, TrialResult
from modessm_jax.phonemes import CLASSES

CHANNELS, STRIDE = 48, 4


def results(labelled: bool) -> list[TrialResult]:
    """Thirty trials of three sessions, decoded with one phoneme in six wrong."""
    rng = np.random.default_rng(0)
    made = []
    for number in range(30):
        labels = rng.integers(1, CLASSES, rng.integers(8, 20)).astype(np.int32)
        decoded = np.where(rng.random(len(labels)) < 1 / 6, rng.integers(1, CLASSES), labels)
        trial = Trial(
            session=f"t15.2023.08.{11 + number % 3}",
            block=1,
            number=number,
            file=Path("nowhere"),
            group="trial_0000",
            bins=STRIDE * (2 * len(labels) + 6),
            labels=labels if labelled else None,
            sentence=None,
            corpus=["Switchboard", "Harvard"][number % 2] if labelled else None,
        )
        frames = trial.bins // STRIDE
        made.append(TrialResult(trial, decoded.tolist(), frames, 20.0, labelled and number != 7))
    return made


def evaluation(labelled: bool = True, feasible: bool = True) -> Evaluation:
    rng = np.random.default_rng(1)
    trials = results(labelled)
    shown = dataclasses.replace(trials[4], feasible=feasible)
    scores = rng.normal(size=(shown.frames, CLASSES)).astype(np.float32)
    scores[:, 0] += 4
    for place, phoneme in enumerate(shown.phonemes):
        scores[2 * place + 3, phoneme] += 8
    probabilities = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    features = rng.normal(size=(shown.trial.bins, CHANNELS)).astype(np.float32)
    example = Example(shown, features, probabilities, STRIDE)
    return Evaluation("val" if labelled else "test", trials, 0.7, example, 1.5)


def metrics(path: Path) -> Path:
    """A run of 2,000 steps that was resumed once."""
    lines = []
    rng = np.random.default_rng(2)
    for step in [*range(10, 1010, 10), *range(900, 2010, 10)]:
        noise = math.exp(0.1 * rng.normal())
        line = {
            "step": step,
            "kind": "train",
            "loss": 2.0,
            "loss/phoneme": (0.3 + 3 * math.exp(-step / 400)) * noise,
            "learning_rate": 1e-3 * min(step / 200, (1 + math.cos(math.pi * step / 2000)) / 2),
            "gradient_norm": 2 * noise,
        }
        for place, scale in enumerate(("fast", "medium", "slow")):
            line[f"diagnostics/norm/{scale}"] = 20 + 4 * place + noise
        lines.append(line)
    for step in range(0, 2001, 200):
        rate = 0.15 + 0.85 * math.exp(-step / 500)
        figures = {"loss": 0.5 + 3 * rate, "per": rate, "per_no_silence": 1.1 * rate}
        lines.append({"step": step, "kind": "evaluation", **figures})
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def size_of(picture: Path) -> tuple[int, int]:
    """Width and height in the header of a PNG."""
    header = picture.read_bytes()[:24]
    assert header[:8] == b"\x89PNG\r\n\x1a\n"
    return int.from_bytes(header[16:20], "big"), int.from_bytes(header[20:24], "big")


@pytest.mark.parametrize("feasible", [True, False])
def test_the_picture_has_its_size_and_is_not_blank(tmp_path, feasible):
    picture = tmp_path / "report.png"
    write_report(picture, metrics(tmp_path / "metrics.jsonl"), evaluation(feasible=feasible), 400)
    assert size_of(picture) == (1600, 1200)
    assert picture.stat().st_size > 100_000


def test_the_model_that_was_kept_is_marked_not_the_lowest_curve(tmp_path):
    """A stage of its own chooses by its own rate; PER may have been lower before it."""
    records = [
        {"step": step, "per": per, "rnnt_per": rnnt}
        for step, per, rnnt in ((400, 0.10, 0.5), (800, 0.12, 0.09), (1200, 0.11, 0.08))
    ]
    axes = Figure().subplots()
    _draw_error_rate(axes, records, 1200)
    labels = [str(line.get_label()) for line in axes.lines]
    assert "best model 11.00 %, step 1200" in labels


def test_a_run_that_has_logged_nothing_yet_is_drawn(tmp_path):
    (tmp_path / "metrics.jsonl").write_text("")
    write_report(tmp_path / "report.png", tmp_path / "metrics.jsonl", evaluation(), 0)
    assert size_of(tmp_path / "report.png") == (1600, 1200)


def test_a_split_without_labels_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no labels"):
        write_report(tmp_path / "report.png", tmp_path / "none", evaluation(labelled=False), 0)


def test_the_table_prints_the_figures():
    shown = evaluation()
    text = format_table(shown)
    lines = {line.split()[0]: line for line in text.splitlines()}
    assert f"{100 * shown.edits.rate:.2f} %" in lines["all"]
    row = shown.to_dict()["sessions"]["t15.2023.08.12"]
    assert f"{100 * row['per']:.2f} %" in lines["t15.2023.08.12"]
    assert "Switchboard" in lines
    assert "t15.2023.08.12/block 1/trial 7" in text
    phoneme, count, rate = shown.by_phoneme()[0]
    assert f"{axis_name(phoneme)} {100 * rate:.2f} % of {count}" in text


def test_the_table_of_an_unlabelled_split_says_so():
    text = format_table(evaluation(labelled=False))
    assert "no labels" in text
    assert "%" not in text


def test_stages_show_what_they_ended_with():
    stages = [
        {"name": "warmup", "begun": 0, "end": {"step": 5, "per": 0.5, "rnnt_per": 12.0}},
        {"name": "joint", "begun": 5, "end": {"step": 9, "per": 0.25, "rnnt_per": 0.2}},
    ]
    assert format_stages(stages).splitlines() == [
        "stage   until step      PER  RNN-T PER",
        "warmup           5  50.00 %  1200.00 %",
        "joint            9  25.00 %    20.00 %",
    ]
    mended = {"step": 12, "per": 0.25, "rnnt_per": 0.2}
    mended |= {"damaged_rnnt_per": 0.5, "mended_rnnt_per": 0.4}
    further = format_stages([*stages, {"name": "flow", "begun": 9, "end": mended}]).splitlines()
    assert further[0].split("PER")[1:] == [
        "  RNN-T ",
        "  damaged, RNN-T ",
        "  denoised, RNN-T ",
        "",
    ]
    assert further[2].split() == ["joint", "9", "25.00", "%", "20.00", "%", "-", "-"]
    assert further[3].split()[-4:] == ["50.00", "%", "40.00", "%"]
    for stage in stages:
        del stage["end"]["rnnt_per"]
    assert format_stages(stages).splitlines()[-1] == "joint            9  25.00 %"
