"""Words without a search or an n-gram: the nearest word to each group of greedy phonemes.

The baseline that word searches must beat, and cheap enough to measure while a model trains.
"""

from collections.abc import Iterable, Sequence
from itertools import groupby

from rapidfuzz import process
from rapidfuzz.distance import Levenshtein

from modessm_jax.evaluation.results import Evaluation
from modessm_jax.language.lexicon import Lexicon
from modessm_jax.phonemes import SILENCE
from modessm_jax.text import total, word_edits


class GreedyWords:
    """Reads greedy phonemes as words.

    The phonemes between two silences become the word with the nearest pronunciation by edit
    distance; of equally near words the first in the lexicon.
    """

    def __init__(self, lexicon: Lexicon):
        self._words: dict[str, str] = {}
        for word, pronunciations in lexicon.words.items():
            for pronunciation in pronunciations:
                self._words.setdefault(_as_text(pronunciation), word)
        self._pronunciations = list(self._words)

    def __call__(self, phonemes: Sequence[int]) -> tuple[str, ...]:
        """The words of phoneme ids, of which 40 (silence) separates words."""
        groups = groupby(phonemes, key=lambda phoneme: phoneme == SILENCE)
        return tuple(self._nearest(_as_text(group)) for silent, group in groups if not silent)

    def _nearest(self, phonemes: str) -> str:
        if phonemes not in self._words:
            phonemes = process.extractOne(
                phonemes, self._pronunciations, scorer=Levenshtein.distance, processor=None
            )[0]
        return self._words[phonemes]


def _as_text(phonemes: Iterable[int]) -> str:
    """Phoneme ids as a string, which compares fastest."""
    return "".join(map(chr, phonemes))


def greedy_word_rates(evaluation: Evaluation, words: GreedyWords) -> dict[str, float]:
    """Word error rates of the greedy phonemes of an evaluation, over the trials with a sentence.

    Returns:
        "wer", of the CTC head, and "rnnt_wer", of the transducer if there is one.

    Raises:
        ValueError: no trial has a sentence, or no sentence has words.
    """
    scored = [result for result in evaluation.trials if result.trial.sentence is not None]
    if not scored:
        raise ValueError(
            f"{evaluation.split} has no sentence to compare words with; leave data.lexicon empty "
            "to train without word error rates"
        )
    decoded = {"wer": [result.phonemes for result in scored]}
    if scored[0].rnnt is not None:
        decoded["rnnt_wer"] = [result.rnnt or [] for result in scored]
    references = [result.trial.sentence or "" for result in scored]
    return {
        name: total(
            word_edits(reference, " ".join(words(phonemes)))
            for reference, phonemes in zip(references, sequences, strict=True)
        ).rate
        for name, sequences in decoded.items()
    }
