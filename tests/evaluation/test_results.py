"""Trials decoded by hand must add up to figures worked out by hand."""

import json
from pathlib import Path

import numpy as np
import pytest

from modessm_jax.data.hdf5 import Trial
from modessm_jax.evaluation.results import Evaluation, Example, TrialResult
from modessm_jax.phonemes import CLASSES, SILENCE, SYMBOLS

FRAMES, NATS = 5, 3.0


def result(
    number: int,
    session: str,
    corpus: str | None,
    decoded: list[int],
    labels: list[int] | None,
    feasible: bool = True,
    rnnt: list[int] | None = None,
) -> TrialResult:
    trial = Trial(
        session=session,
        block=2,
        number=number,
        file=Path("nowhere"),
        group=f"trial_{number:04d}",
        bins=2 * FRAMES,
        labels=None if labels is None else np.array(labels, np.int32),
        sentence=None,
        corpus=corpus,
    )
    return TrialResult(trial, decoded, FRAMES, NATS * feasible, feasible, rnnt)


def evaluation(results: list[TrialResult], loss: float | None = 0.5) -> Evaluation:
    nothing = np.zeros((0, CLASSES), np.float32)
    return Evaluation("val", results, loss, Example(results[0], nothing, nothing, 2), seconds=1.0)


REFERENCE = 14


@pytest.fixture(scope="module")
def labelled() -> Evaluation:
    return evaluation(
        [
            result(10, "a", "Random", [1, 2, SILENCE], [1, 2, SILENCE]),  # right
            result(11, "b", "Harvard", [3, 4], [3, 5, SILENCE]),  # a substitution, a deletion
            result(12, "a", "Random", [6, 6, 7, 8, SILENCE], [6, 6, 7, SILENCE]),  # an insertion
            result(13, "b", "Harvard", [9], [9, 9, 10], feasible=False),  # two deletions
            result(14, "b", None, [], [11]),  # all deleted
        ]
    )


def test_error_rates_are_ratios_of_sums(labelled):
    found = labelled.to_dict()
    names = ("substitutions", "insertions", "deletions")
    assert [found[name] for name in names] == [1, 1, 4]
    assert found["reference_phonemes"] == REFERENCE
    assert found["per"] == pytest.approx(6 / 14)
    # Without silence one deletion (of trial 11) is gone, and so are three references.
    assert found["per_no_silence"] == pytest.approx(5 / 11)
    low, high = found["per_interval"]
    assert low < found["per"] < high


def test_nats_are_of_the_feasible_trials_only(labelled):
    found = labelled.to_dict()
    assert found["nats_per_label"] == pytest.approx(4 * NATS / 11)
    assert found["nats_per_frame"] == pytest.approx(NATS / FRAMES)
    assert found["infeasible"] == ["b/block 2/trial 13"]
    assert labelled.scalars()["infeasible"] == 1


def test_rows_for_sessions_and_corpora_add_up(labelled):
    found = labelled.to_dict()
    assert list(found["sessions"]) == ["a", "b"]
    assert found["sessions"]["a"]["per"] == pytest.approx(1 / 7)
    assert found["sessions"]["b"]["per"] == pytest.approx(5 / 7)
    assert found["sessions"]["b"]["trials"] == 3
    assert found["corpora"]["Harvard"]["per"] == pytest.approx(4 / 6)
    assert found["corpora"]["unknown"]["per"] == 1
    for groups in (found["sessions"], found["corpora"]):
        for name in ("trials", "reference_phonemes", "insertions", "deletions", "substitutions"):
            assert sum(row[name] for row in groups.values()) == found[name]


def test_the_confusion_matrix_counts_every_reference_and_every_decoded_phoneme(labelled):
    counts = labelled.confusion
    assert counts[5, 4] == 1  # substituted
    assert counts[0, 8] == 1  # inserted
    assert counts[:, 0].tolist() == [0] * 9 + [1, 1, 1] + [0] * 28 + [1]  # deleted
    assert counts.sum() - np.trace(counts) == 6
    assert counts[1:].sum() == REFERENCE
    assert counts[:, 1:].sum() == sum(len(result.phonemes) for result in labelled.trials)
    worst = {SYMBOLS[k]: (count, rate) for k, count, rate in labelled.by_phoneme()}
    assert set(list(worst)[:3]) == {"AW", "DH", "EH"}
    assert worst["DH"] == (1, 1.0)
    assert worst["D"] == (2, 0.5)
    assert worst["AA"] == (1, 0.0)
    assert "CH" not in worst


def test_a_transducer_is_scored_beside_ctc():
    found = evaluation(
        [
            result(1, "a", None, [1, 2], [1, 2, 3], rnnt=[1, 2, 3]),
            result(2, "b", None, [4], [4], rnnt=[]),
        ]
    )
    assert found.to_dict()["per"] == pytest.approx(1 / 4)
    assert found.to_dict()["rnnt_per"] == found.scalars()["rnnt_per"] == pytest.approx(1 / 4)
    assert found.to_dict()["sessions"]["a"]["rnnt_per"] == 0
    assert found.to_dict()["sessions"]["b"]["rnnt_per"] == 1
    assert found.trials[0].prediction()["rnnt_phonemes"] == [1, 2, 3]


def test_without_a_transducer_there_is_no_figure_of_it(labelled):
    assert "rnnt_per" not in labelled.to_dict()
    assert set(labelled.trials[0].prediction()) == {"session", "block_num", "trial_num", "phonemes"}


def test_results_are_json_and_agree_with_what_is_logged(labelled):
    found = json.loads(json.dumps(labelled.to_dict()))
    for name, value in labelled.scalars().items():
        if name != "infeasible":
            assert found[name] == value


def test_rates_over_nothing_are_none():
    found = evaluation([result(1, "a", None, [1], []), result(2, "b", None, [2], [2])]).to_dict()
    assert found["per"] == 1  # one insertion, one reference
    assert found["sessions"]["a"]["per"] is None
    assert found["corpora"] == {}
    nothing = evaluation([result(1, "a", None, [1], [])])
    assert nothing.interval is None
    assert "per" not in nothing.scalars()


def test_without_labels_there_are_counts_and_no_rates():
    found = evaluation([result(1, "a", None, [1, 2], None)], loss=None)
    assert found.scalars() == {}
    assert found.to_dict()["decoded_phonemes"] == 2
    assert found.to_dict()["sessions"] == {"a": {"trials": 1, "decoded_phonemes": 2}}
    with pytest.raises(ValueError, match="a/block 2/trial 1: this split has no labels"):
        _ = found.edits
