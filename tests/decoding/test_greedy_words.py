"""Groups of phonemes between silences become the nearest words of the lexicon."""

import pytest

from modessm_jax.decoding.greedy_words import GreedyWords
from modessm_jax.phonemes import SILENCE, phoneme_id


def ids(text: str) -> list[int]:
    return [SILENCE if symbol == "|" else phoneme_id(symbol) for symbol in text.split()]


LEXICON = {
    "cat": [ids("K AE T |")],  # silence at the end, as some lexicons have it
    "hat": [ids("HH AE T")],
    "the": [ids("DH AH"), ids("DH IY")],
    "thee": [ids("DH IY")],
}


@pytest.fixture(scope="module")
def words() -> GreedyWords:
    return GreedyWords(LEXICON)


def test_every_pronunciation_is_found(words):
    assert words(ids("DH AH | K AE T |")) == ("the", "cat")
    assert words(ids("DH IY | HH AE T")) == ("the", "hat")


def test_what_is_no_word_becomes_the_nearest(words):
    assert words(ids("HH AA T | K AE T S |")) == ("hat", "cat")


def test_silence_alone_is_no_word(words):
    assert words(ids("| | K AE T | |")) == ("cat",)
    assert words([]) == ()


def test_an_empty_lexicon_is_refused():
    with pytest.raises(ValueError, match="has no words"):
        GreedyWords({})
