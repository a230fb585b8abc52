"""N-grams of phonemes: made from text and a lexicon, and fused into the transducer's search."""

import itertools
from collections.abc import Iterable, Iterator

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float32

from modessm_jax.decoding.transducer_beam import Fusion
from modessm_jax.language.lexicon import Lexicon
from modessm_jax.language.ngram import NGram
from modessm_jax.phonemes import BLANK, CLASSES, SILENCE, SYMBOLS
from modessm_jax.text import normalize

# An n-gram's words hold no white space: the silence is "|".
TOKENS = tuple(symbol.strip() for symbol in SYMBOLS)

_MAX_ORDER = 4


def spoken(sentences: Iterable[str], lexicon: Lexicon) -> Iterator[list[str]]:
    """The phonemes of every sentence whose words the lexicon knows, a silence after each word.

    Of several pronunciations the first is taken.
    """
    first = {
        word: [*(TOKENS[sound] for sound in variants[0]), TOKENS[SILENCE]]
        for word, variants in lexicon.words.items()
    }
    for sentence in sentences:
        words = normalize(sentence).split()
        if all(word in first for word in words):
            yield [sound for word in words for sound in first[word]]


def next_phonemes(ngram: NGram) -> Float32[np.ndarray, "contexts classes"]:
    """log p of every next phoneme after every context of order - 1 phonemes; the blank's is 0.

    A context is a number in base 41, its last phoneme the last digit; a digit of 0 stands before
    the sentence begins.

    Raises:
        ValueError: the n-gram is of words, or so long that its table would not fit.
    """
    # A small text may lack a rare phoneme, but none lacks the silence after every word. In capitals
    # an n-gram of words may know phonemes: "er", "ow".
    strange = [token for token in TOKENS[BLANK + 1 :] if token not in ngram]
    if TOKENS[SILENCE] in strange or ngram.order > _MAX_ORDER:
        raise ValueError(
            f"{ngram.path} must be an n-gram of phonemes, of order {_MAX_ORDER} at most, such as "
            "`python -m experiments.language_model phonemes` makes; it is of order "
            f"{ngram.order} and lacks {', '.join(strange) or 'none'} of them"
        )
    table = np.zeros((CLASSES,) * ngram.order, np.float32)
    for context in itertools.product(range(CLASSES), repeat=ngram.order - 1):
        state = ngram.start()
        for phoneme in context:
            # What is before the sentence has no place inside it.
            state = ngram.start() if phoneme == BLANK else ngram.extend(state, TOKENS[phoneme])[0]
        scores = [ngram.extend(state, token)[1] for token in TOKENS[BLANK + 1 :]]
        table[context][BLANK + 1 :] = scores
    return table.reshape(-1, CLASSES)


def phoneme_fusion(ngram: NGram, weight: float) -> Fusion:
    """The n-gram as a language model of the transducer's beam search.

    Raises:
        ValueError: see `next_phonemes`.
    """
    table = jnp.asarray(next_phonemes(ngram))
    contexts = len(table)
    return Fusion(
        start=lambda batch: jnp.zeros((batch,), jnp.int32),
        score=lambda state: table[state],
        advance=lambda state, labels: (state * CLASSES + labels) % contexts,
        weight=weight,
    )
