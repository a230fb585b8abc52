"""What tuning measured is measured again only when something it came from has changed."""

import dataclasses

import numpy as np
import pytest

from modessm_jax.decoding.lexicon import Lexicon
from modessm_jax.decoding.word_search import SearchOptions
from modessm_jax.training.tuning import Grid, Tuning
from modessm_jax.training.tuning_cache import cached, origin
from tests.training.spoken import LEXICON, posteriors

GRID = Grid(lm_weight=(0.5, 1.0), word_score=(0.0,), blank_penalty=(1.0,))


@pytest.fixture
def facts(tmp_path):
    (tmp_path / "lm").write_bytes(b"one")
    return origin(posteriors(), LEXICON, tmp_path / "lm", SearchOptions(), GRID)


def measured() -> Tuning:
    errors = np.arange(12).reshape(2, 1, 1, 6)
    return Tuning(GRID, errors, np.full(6, 10), np.array([True, False] * 3))


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
    finer = dataclasses.replace(GRID, word_score=(0.0, 1.0))
    others = [
        origin(posteriors(sentences=["two cats", "cats"]), LEXICON, lm, options, GRID),
        origin(posteriors(), reordered, lm, options, GRID),
        origin(posteriors(), LEXICON, None, options, GRID),
        origin(posteriors(), LEXICON, lm, dataclasses.replace(options, beam=7), GRID),
        origin(posteriors(), LEXICON, lm, options, finer),
    ]
    lm.write_bytes(b"two")
    others.append(origin(posteriors(), LEXICON, lm, options, GRID))
    assert all(other != facts for other in others)
    lm.write_bytes(b"one")
    # The length of the n-best list, and weights that the grid replaces, change no error.
    spared = dataclasses.replace(options, nbest=3, word_score=5.0)
    assert origin(posteriors(), LEXICON, lm, spared, GRID) == facts
