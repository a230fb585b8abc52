"""Phonemes between silences become the nearest words; their error rates against counts by hand."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from modessm_jax.data.hdf5 import Trial
from modessm_jax.evaluation.results import Evaluation, Example, TrialResult
from modessm_jax.language.lexicon import Lexicon, build_lexicon
from modessm_jax.phonemes import CLASSES, SILENCE, phoneme_id
from modessm_jax.words.greedy import GreedyWords, greedy_word_rates


def ids(text: str) -> list[int]:
    return [SILENCE if symbol == "|" else phoneme_id(symbol) for symbol in text.split()]


LEXICON = Lexicon(
    {
        "cat": (tuple(ids("K AE T")),),
        "hat": (tuple(ids("HH AE T")),),
        "the": (tuple(ids("DH AH")), tuple(ids("DH IY"))),
        "thee": (tuple(ids("DH IY")),),
    }
)


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


DIGITS = build_lexicon(["one", "two", "three"])
WORDS = GreedyWords(DIGITS)


def spoken(*words: str) -> list[int]:
    return [sound for word in words for sound in (*DIGITS.words[word][0], SILENCE)]


def evaluation(*results: tuple[str | None, list[int], list[int] | None]) -> Evaluation:
    made = []
    for number, (sentence, ctc, rnnt) in enumerate(results):
        labels = np.array(ctc, np.int32)
        trial = Trial("a", 1, number, Path("nowhere"), "trial_0000", 9, labels, sentence, None)
        made.append(TrialResult(trial, ctc, 9, 1.0, True, rnnt))
    example = Example(made[0], np.zeros((9, 1), np.float32), np.zeros((9, CLASSES), np.float32), 1)
    return Evaluation("val", made, 0.5, example, 0.0)


def test_words_of_both_heads_are_counted() -> None:
    found = greedy_word_rates(
        evaluation(
            ("One, two!", spoken("one", "two"), spoken("one", "three")),
            ("three", [*spoken("three")[:-2], SILENCE], spoken("three")),  # still the nearest
            ("one two", spoken("two"), []),
        ),
        WORDS,
    )
    assert found == {"wer": 1 / 5, "rnnt_wer": 3 / 5}


def test_without_a_transducer_there_is_one_rate_and_without_a_sentence_none() -> None:
    one = evaluation(("two", spoken("two"), None))
    assert greedy_word_rates(one, WORDS) == {"wer": 0.0}
    trial = dataclasses.replace(one.trials[0].trial, sentence=None)
    silent = dataclasses.replace(one, trials=[dataclasses.replace(one.trials[0], trial=trial)])
    both = dataclasses.replace(one, trials=[*silent.trials, *one.trials])
    assert greedy_word_rates(both, WORDS) == {"wer": 0.0}
    with pytest.raises(ValueError, match=r"has no sentence.*data.lexicon"):
        greedy_word_rates(silent, WORDS)
