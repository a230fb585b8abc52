"""N-grams of phonemes: training data from text and a lexicon, and fusion into the beam search."""

import itertools
from collections.abc import Iterable, Iterator

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float32

from modessm_jax.decoding.transducer_beam import Fusion
from modessm_jax.language.lexicon import Lexicon
from modessm_jax.language.ngram import NGram
from modessm_jax.phonemes import BLANK, CLASSES, SILENCE, SYMBOLS
from modessm_jax.text import clean

# Words of an n-gram have no white space: the silence is "|".
TOKENS = tuple(symbol.strip() for symbol in SYMBOLS)

_MAX_ORDER = 4


def phonemes_of(sentences: Iterable[str], lexicon: Lexicon) -> Iterator[list[str]]:
    """The phonemes of every sentence whose words are all in the lexicon, silence after each word.

    Of several pronunciations the first is taken.
    """
    first = {
        word: [*(TOKENS[sound] for sound in variants[0]), TOKENS[SILENCE]]
        for word, variants in lexicon.words.items()
    }
    for sentence in sentences:
        words = clean(sentence).split()
        if all(word in first for word in words):
            yield [sound for word in words for sound in first[word]]


def next_phonemes(ngram: NGram) -> Float32[np.ndarray, "contexts classes"]:
    """log p of every next phoneme after every context of order - 1 phonemes; the blank's is 0.

    A context is a number in base 41 whose last digit is the last phoneme; the digit 0 stands for
    what is before the sentence.

    Raises:
        ValueError: the n-gram is of words, or so long that its table would not fit.
    """
    # A small text may lack a rare phoneme, but never the silence after every word. An n-gram of
    # words in capitals may have some phonemes: "ER", "OW".
    lacking = [token for token in TOKENS[BLANK + 1 :] if token not in ngram]
    if TOKENS[SILENCE] in lacking or ngram.order > _MAX_ORDER:
        raise ValueError(
            f"{ngram.path} must be an n-gram of phonemes, of order {_MAX_ORDER} at most, such as "
            "`python -m experiments.language_model phonemes` makes; it is of order "
            f"{ngram.order} and lacks {', '.join(lacking) or 'none'} of them"
        )
    table = np.zeros((CLASSES,) * ngram.order, np.float32)
    for context in itertools.product(range(CLASSES), repeat=ngram.order - 1):
        state = ngram.start()
        for phoneme in context:
            # A digit 0 inside a context starts the sentence again.
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
