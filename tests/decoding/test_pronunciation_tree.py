"""Every sentence walks the tree, and nothing else does."""

import numpy as np
import pytest

from modessm_jax.decoding.lexicon import Lexicon
from modessm_jax.decoding.pronunciation_tree import BETWEEN, NO_WORD, START, PronunciationTree, grow
from modessm_jax.phonemes import SILENCE

LEXICON = Lexicon({"a": ((3,), (3, 5)), "b": ((3, 5),), "c": ((7,), (7,))})
SCORES = {"a": -3.0, "b": -1.0, "c": -2.0}


def arcs(tree: PronunciationTree, node: int) -> list[tuple[int, int, int]]:
    """Label, target and word of those that leave a node."""
    own = slice(tree.first[node], tree.first[node + 1])
    fields = (field[own].tolist() for field in (tree.label, tree.target, tree.word))
    return list(zip(*fields, strict=True))


def test_words_share_their_beginnings_and_end_with_a_silence_each():
    tree = grow(LEXICON, SCORES.__getitem__)
    (three, inner, _), (seven, other, _) = arcs(tree, BETWEEN)
    assert (three, seven) == (3, 7)
    assert arcs(tree, START) == [(SILENCE, BETWEEN, NO_WORD), *arcs(tree, BETWEEN)]
    (five, last, word), end = arcs(tree, inner)
    assert (five, word) == (5, NO_WORD) and end == (SILENCE, BETWEEN, 0)
    assert arcs(tree, last) == [(SILENCE, BETWEEN, 0), (SILENCE, BETWEEN, 1)]
    assert arcs(tree, other) == [(SILENCE, BETWEEN, 2)]  # the same pronunciation twice is one
    assert [tree.words(node) for node in (START, BETWEEN, inner, last)] == [[], [], [0], [0, 1]]


def test_a_node_looks_ahead_to_the_likeliest_word_beneath_it():
    tree = grow(LEXICON, SCORES.__getitem__)
    inner, other = (target for _, target, _ in arcs(tree, BETWEEN))
    np.testing.assert_array_equal(tree.ahead[[START, BETWEEN, inner, other]], [0, 0, -1, -2])


def test_an_empty_lexicon_is_refused():
    with pytest.raises(ValueError, match="no words"):
        grow(Lexicon({}), SCORES.__getitem__)
