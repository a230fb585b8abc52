"""Word confidences against posteriors added up by hand."""

import math

import pytest

from modessm_jax.decoding.confidence import word_confidences
from modessm_jax.decoding.word_search import WordHypothesis


def hypothesis(
    words: str, times: tuple[tuple[int, int], ...], probability: float
) -> WordHypothesis:
    total = math.log(probability) - 7
    return WordHypothesis(tuple(words.split()), total, 0.0, total, times)


def test_a_word_is_as_sure_as_the_hypotheses_that_have_it_there_are_likely():
    found = [
        hypothesis("the cat the", ((0, 2), (3, 6), (8, 9)), 0.5),
        hypothesis("a cat", ((0, 2), (5, 8)), 0.3),
        # The cat of this one begins where the other's ends.
        hypothesis("the cat", ((1, 2), (6, 9)), 0.2),
    ]
    assert word_confidences(found) == pytest.approx([0.7, 0.8, 0.5])


def test_hypotheses_far_behind_do_not_overflow():
    found = [
        WordHypothesis(("a",), 0.0, 0.0, -1e4, ((0, 1),)),
        WordHypothesis(("b",), 0.0, 0.0, -2e4, ((0, 1),)),
    ]
    assert word_confidences(found) == [1.0]


def test_an_empty_list_is_refused():
    with pytest.raises(ValueError, match="empty"):
        word_confidences([])
