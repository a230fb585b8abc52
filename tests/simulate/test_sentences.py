import numpy as np
import pytest

from modessm_jax.phonemes import SILENCE, phoneme_id
from modessm_jax.simulate import sentences
from modessm_jax.text import normalize


@pytest.fixture(scope="module")
def known():
    return sentences.pronunciations()


def draw(seed, count=200, low=3, high=6):
    return sentences.draw_sentences(
        np.random.default_rng(seed), count, min_words=low, max_words=high
    )


def test_sentences_are_different_of_the_asked_length_and_reproducible():
    drawn = draw(1)
    assert drawn == draw(1) and drawn != draw(2)
    assert len(set(drawn)) == 200
    assert {len(normalize(sentence).split()) for sentence in drawn} == {3, 4, 5, 6}
    assert all(s[0].isupper() and s[-1] in ".?" and s.isascii() for s in drawn)


def test_a_grammar_that_is_too_small_is_an_error():
    with pytest.raises(ValueError, match="0 of 3 different sentences of 1 to 1"):
        draw(0, 3, 1, 1)


def test_every_word_of_the_vocabulary_can_be_pronounced(known):
    assert 300 <= len(known) <= 600
    assert all(phoneme_id(symbol) < SILENCE for sounds in known.values() for symbol in sounds)


def test_pronunciations_end_every_word_in_silence(known):
    drawn = draw(0)
    for sentence in drawn:
        ids = sentences.pronounce(sentence, known)
        assert np.count_nonzero(ids == SILENCE) == len(normalize(sentence).split())
        assert ids[-1] == SILENCE


def test_every_phoneme_is_said(known):
    said = np.concatenate([sentences.pronounce(sentence, known) for sentence in draw(0, 1000)])
    assert set(said.tolist()) == set(range(1, SILENCE + 1))


def test_unknown_words_are_named(known):
    with pytest.raises(ValueError, match="zyzzyva"):
        sentences.pronounce("A zyzzyva!", known)
