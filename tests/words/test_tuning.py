"""Weights are chosen on val alone, and scored on sentences they were not chosen on.

What tuning measured is measured again only when something it came from has changed.
"""

import dataclasses
import io

import numpy as np
import pytest

from modessm_jax.language.lexicon import Lexicon
from modessm_jax.words.ctc_search import SearchOptions
from modessm_jax.words.decoder import WordDecoder
from modessm_jax.words.tuning import (
    Grid,
    Tuning,
    Weights,
    cached,
    draw_tuning,
    halves,
    origin,
    tune,
)
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
    given = posteriors()
    grid = dataclasses.replace(GRID, lm_weight=(0.0, 0.5, 1.0, 1.5))
    matrices = [trial.frames for trial in given.trials]
    decoder = WordDecoder(LEXICON, write_lm(tmp_path), matrices, stream=io.StringIO())
    tuning = tune(decoder, given, SearchOptions(beam=20), grid)
    assert tuning.errors.shape == (4, 1, 3, 6)
    assert tuning.errors[0, 0, 0].tolist() == [1, 0, 1, 0, 1, 0]
    assert not tuning.errors[1:, 0, 0].any()
    assert tuning.words.tolist() == [2, 2, 4, 1, 4, 1]
    assert tuning.best.lm_weight > 0
    assert tuning.crossed_rate == tuning.best_rate == 0
    draw_tuning(tmp_path / "tuning.png", tuning)
    assert (tmp_path / "tuning.png").read_bytes()[:4] == b"\x89PNG"
    for split, labelled, reason in (("test", True, "no test of them"), ("val", False, "sentence")):
        with pytest.raises(ValueError, match=reason):
            tune(decoder, posteriors(split, labelled=labelled), SearchOptions(), grid)


def test_a_grid_without_values_is_refused():
    for values in ((), (1.0, 1.0), (2.0, 1.0)):
        with pytest.raises(ValueError, match="word_score"):
            Grid(word_score=values)


SMALL_GRID = Grid(lm_weight=(0.5, 1.0), word_score=(0.0,), blank_penalty=(1.0,))


@pytest.fixture
def facts(tmp_path):
    (tmp_path / "lm").write_bytes(b"one")
    return origin(posteriors(), LEXICON, tmp_path / "lm", SearchOptions(), SMALL_GRID)


def measured() -> Tuning:
    errors = np.arange(12).reshape(2, 1, 1, 6)
    return Tuning(SMALL_GRID, errors, np.full(6, 10), np.array([True, False] * 3))


def test_the_same_tuning_is_measured_once(tmp_path, facts):
    first, picture = cached(tmp_path / "new", facts, measured)

    def again() -> Tuning:
        raise AssertionError("measured again")

    second, same = cached(tmp_path / "new", facts, again)
    assert picture == same and picture.exists()
    assert second.grid == first.grid
    for name in ("errors", "words", "second"):
        np.testing.assert_array_equal(getattr(second, name), getattr(first, name))
    other, _ = cached(tmp_path / "new", {**facts, "lm": None}, measured)
    assert other.best == first.best
    assert len(list((tmp_path / "new").iterdir())) == 4


def test_every_part_counts(tmp_path, facts):
    lm, options = tmp_path / "lm", SearchOptions()
    reordered = Lexicon(dict(reversed(list(LEXICON.words.items()))))
    finer = dataclasses.replace(SMALL_GRID, word_score=(0.0, 1.0))
    others = [
        origin(posteriors(sentences=["two cats", "cats"]), LEXICON, lm, options, SMALL_GRID),
        origin(posteriors(), reordered, lm, options, SMALL_GRID),
        origin(posteriors(), LEXICON, None, options, SMALL_GRID),
        origin(posteriors(), LEXICON, lm, dataclasses.replace(options, beam=7), SMALL_GRID),
        origin(posteriors(), LEXICON, lm, options, finer),
    ]
    lm.write_bytes(b"two")
    others.append(origin(posteriors(), LEXICON, lm, options, SMALL_GRID))
    assert all(other != facts for other in others)
    lm.write_bytes(b"one")
    # The length of the n-best list, and weights that the grid replaces, change no error.
    spared = dataclasses.replace(options, nbest=3, word_score=5.0)
    assert origin(posteriors(), LEXICON, lm, spared, SMALL_GRID) == facts
