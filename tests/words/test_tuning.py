"""Weights are chosen on val alone, and scored on sentences they were not chosen on.

What tuning measured is measured again only when something it came from has changed.
"""

import dataclasses
import json

import numpy as np
import pytest

from modessm_jax.language.lexicon import Lexicon
from modessm_jax.search.options import SearchOptions
from modessm_jax.words import tuning as module
from modessm_jax.words.decoder import Vocabulary
from modessm_jax.words.tuning import Grid, Tuning, Weights, halves, tune
from tests.words.spoken import LEXICON, posteriors, write_lm

GRID = Grid(lm_weight=(0.5, 1.0, 2.0), word_score=(0.0,), blank_penalty=(1.0, 7.0, 90.0))
# Halves in turn: the first does best at 2.0 and 7.0, the second at 1.0 and 1.0.
SECOND = np.array([False, True] * 3)


def tuning_of(best_of_first: tuple[int, int], best_of_second: tuple[int, int]) -> Tuning:
    errors = np.full((3, 1, 3, 6), 2)
    for half, (lm, penalty) in enumerate((best_of_first, best_of_second)):
        errors[lm, 0, penalty, half::2] = 1
    return Tuning(GRID, errors, np.full(6, 10), SECOND)


def test_each_half_is_scored_with_the_weights_of_the_other():
    tuning = tuning_of((2, 1), (1, 0))
    of_first, of_second = Weights(2.0, 0.0, 7.0), Weights(1.0, 0.0, 1.0)
    assert tuning.crossed == [of_second, of_first] * 3
    assert tuning.crossed_rate == pytest.approx(0.2)
    assert tuning.best in (of_first, of_second)
    assert tuning.best_rate == pytest.approx(0.15)


def test_of_many_good_points_the_middle_is_chosen():
    errors = np.full((3, 1, 3, 6), 2)
    errors[:, 0, :2] = 1
    errors[0, 0, 2] = 1
    assert Tuning(GRID, errors, np.full(6, 10), SECOND).best.lm_weight == 1.0


def test_the_best_at_the_end_of_an_axis_is_noticed():
    assert tuning_of((2, 1), (2, 1)).edges == ["lm_weight"]
    assert tuning_of((1, 1), (1, 1)).edges == []
    flat = tuning_of((1, 1), (1, 1))
    assert dataclasses.replace(flat, errors=np.ones_like(flat.errors)).edges == []


def test_halves_share_no_sentence_and_do_not_depend_on_the_order():
    sentences = [f"sentence {letter}" for letter in "abcdefghia"]
    second = halves(sentences)
    assert second[0] == second[-1]
    assert len(set(np.array(sentences)[second])) == 5
    np.testing.assert_array_equal(halves(sentences[::-1]), second[::-1])
    with pytest.raises(ValueError, match="fewer than two different"):
        halves(["same", "same"])


def test_a_search_is_tuned(tmp_path):
    """Without the n-gram homophones are confused, so its weight matters and nothing else does."""
    vocabulary = Vocabulary(LEXICON, write_lm(tmp_path))
    grid = dataclasses.replace(GRID, lm_weight=(0.0, 0.5, 1.0, 1.5))
    options = SearchOptions(beam=20)
    tuning, picture = tune(vocabulary, posteriors(), options, grid, tmp_path / "new")
    assert tuning.errors.shape == (4, 1, 3, 6)
    assert tuning.errors[0, 0, 0].tolist() == [1, 0, 1, 0, 1, 0]
    assert not tuning.errors[1:, 0, 0].any()
    assert tuning.words.tolist() == [2, 2, 4, 1, 4, 1]
    assert tuning.best.lm_weight > 0
    assert tuning.crossed_rate == tuning.best_rate == 0
    assert picture.read_bytes()[:4] == b"\x89PNG"
    for split, labelled, reason in (("test", True, "no test of them"), ("val", False, "sentence")):
        with pytest.raises(ValueError, match=reason):
            tune(vocabulary, posteriors(split, labelled=labelled), options, grid, tmp_path / "new")


def test_a_grid_without_values_is_refused():
    for values in ((), (1.0, 1.0), (2.0, 1.0)):
        with pytest.raises(ValueError, match="word_score"):
            Grid(word_score=values)


SMALL_GRID = Grid(lm_weight=(0.5, 1.0), word_score=(0.0,), blank_penalty=(1.0,))


@pytest.fixture
def given(tmp_path):
    return {
        "vocabulary": Vocabulary(LEXICON, write_lm(tmp_path)),
        "val": posteriors(),
        "options": SearchOptions(beam=20),
        "grid": SMALL_GRID,
        "folder": tmp_path / "new",
    }


def test_the_same_tuning_is_measured_once(given, monkeypatch):
    first, picture = tune(**given)
    monkeypatch.delattr(module, "search_trials")
    second, same = tune(**given)
    assert picture == same and picture.exists()
    assert second.grid == first.grid and second.best == first.best
    for name in ("errors", "words", "second"):
        np.testing.assert_array_equal(getattr(second, name), getattr(first, name))
        assert getattr(second, name).dtype == getattr(first, name).dtype
    kept = json.loads(picture.with_suffix(".json").read_text())
    assert kept["best"] == first.best._asdict()
    assert (kept["best_rate"], kept["crossed_rate"]) == (first.best_rate, first.crossed_rate)


def test_a_change_of_any_part_is_measured_again(given):
    vocabulary, options = given["vocabulary"], given["options"]
    lm, folder = vocabulary.lm, given["folder"]

    def files(**changes) -> int:
        tune(**given | changes)
        return len(list(folder.glob("*.json")))

    assert files() == 1
    # The length of the n-best list, and weights that the grid replaces, change no error.
    spared = dataclasses.replace(options, nbest=3, word_score=5.0)
    assert files(options=spared) == 1
    reordered = Lexicon(dict(reversed(list(LEXICON.words.items()))))
    others = [
        {"val": posteriors(sentences=["two cats", "cats"])},
        {"vocabulary": vocabulary._replace(lexicon=reordered)},
        {"vocabulary": vocabulary._replace(lm=None)},
        {"options": dataclasses.replace(options, beam=7)},
        {"grid": dataclasses.replace(SMALL_GRID, word_score=(0.0, 1.0))},
    ]
    assert [files(**other) for other in others] == [2, 3, 4, 5, 6]
    lm.write_text(lm.read_text() + "\n")
    assert files() == 7
