"""A lexicon as a tree of pronunciations: after any labels, the labels and words that may follow.

A sentence is said as: silence or none; then each word's phonemes, followed by one silence, except
that the last word may end without.
"""

from collections import defaultdict
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from modessm_jax.decoding.lexicon import Lexicon
from modessm_jax.phonemes import SILENCE

START = 0  # nothing has been said
BETWEEN = 1  # the last label was a silence
NO_WORD = -1


class PronunciationTree(NamedTuple):
    """Nodes of a tree, and its arcs: those of node n are `first[n]` to `first[n + 1]`.

    Words end with a silence, an arc of its own for each word that is pronounced so; it leads back
    between the words. A sentence may end at `START`, `BETWEEN`, and wherever a word may.
    """

    first: Int[np.ndarray, "nodes+1"]
    label: Int[np.ndarray, "arcs"]
    target: Int[np.ndarray, "arcs"]  # the node an arc leads to
    word: Int[np.ndarray, "arcs"]  # the one that ends with the arc, by its place; or NO_WORD
    ahead: Float[np.ndarray, "nodes"]  # the likeliest word that may follow here, 0 between words

    def words(self, node: int) -> list[int]:
        """Those that may end at a node."""
        words = self.word[self.first[node] : self.first[node + 1]]
        return words[words != NO_WORD].tolist()


def grow(lexicon: Lexicon, score: Callable[[str], float]) -> PronunciationTree:
    """Builds the tree, which takes seconds for a large lexicon.

    Args:
        lexicon: pronunciations without the silence at their ends.
        score: log-probability of a word by itself, which `ahead` is made of (S. Ortmanns et al.,
            "Language-model look-ahead for large vocabulary speech recognition", ICSLP 1996).

    Raises:
        ValueError: the lexicon has no words.
    """
    if not lexicon.words:
        raise ValueError("the lexicon has no words; give it at least one")
    children: list[dict[int, int]] = [{}, {}]
    words: defaultdict[int, list[int]] = defaultdict(list)
    ahead = [0.0, 0.0]
    for index, (word, pronunciations) in enumerate(lexicon.words.items()):
        of_word = score(word)
        for pronunciation in dict.fromkeys(pronunciations):
            node = BETWEEN
            for phoneme in pronunciation:
                node = children[node].setdefault(phoneme, len(children))
                if node == len(children):
                    children.append({})
                    ahead.append(of_word)
                ahead[node] = max(ahead[node], of_word)
            words[node].append(index)
    first, arcs = [0], []
    for node, below in enumerate(children):
        if node == START:
            arcs.append((SILENCE, BETWEEN, NO_WORD))
            below = children[BETWEEN]
        arcs += [(phoneme, child, NO_WORD) for phoneme, child in below.items()]
        arcs += [(SILENCE, BETWEEN, word) for word in words[node]]
        first.append(len(arcs))
    label, target, word = np.array(arcs, np.int64).T
    return PronunciationTree(np.array(first), label, target, word, np.array(ahead))
