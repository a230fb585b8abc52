"""Words without a search or a language model: the baseline that word decoders must beat.

Word error rates without a search: cheap enough to choose a model by while it trains.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby

from rapidfuzz import process
from rapidfuzz.distance import Levenshtein

from modessm_jax.evaluation.results import Evaluation
from modessm_jax.phonemes import SILENCE
from modessm_jax.text import total, word_edits


class GreedyWords:
    """Reads greedily decoded phonemes as words: what stands between silences is the word of the
    nearest pronunciation by edit distance.

    Of words that are equally near, the first in `words` is taken.
    """

    def __init__(self, words: Mapping[str, Iterable[Sequence[int]]]):
        """Takes the pronunciations of every word, in phoneme ids; silence in them is ignored.

        Raises:
            ValueError: there is no word to choose from.
        """
        self._words: dict[str, str] = {}
        for word, pronunciations in words.items():
            for pronunciation in pronunciations:
                self._words.setdefault(_key(pronunciation), word)
        if not self._words:
            raise ValueError("the lexicon has no words; give one with those to be recognised")
        self._keys = list(self._words)

    def __call__(self, phonemes: Sequence[int]) -> tuple[str, ...]:
        """The words of phoneme ids, of which 40 (silence) separates words."""
        groups = groupby(phonemes, key=lambda phoneme: phoneme == SILENCE)
        return tuple(self._nearest(_key(group)) for silent, group in groups if not silent)

    def _nearest(self, sounds: str) -> str:
        if sounds not in self._words:
            sounds = process.extractOne(
                sounds, self._keys, scorer=Levenshtein.distance, processor=None
            )[0]
        return self._words[sounds]


def _key(phonemes: Iterable[int]) -> str:
    """Phoneme ids as a string, which is what compares fastest."""
    return "".join(chr(phoneme) for phoneme in phonemes if phoneme != SILENCE)


def greedy_word_rates(evaluation: Evaluation, words: GreedyWords) -> dict[str, float]:
    """The word error rates of greedily decoded phonemes, read as the nearest words.

    Returns:
        "wer", of the CTC head, and where there is a transducer "rnnt_wer", of it.

    Raises:
        ValueError: a trial has no sentence, or there are no words to recognise.
    """
    said = {"wer": [result.phonemes for result in evaluation.trials]}
    if evaluation.trials[0].rnnt is not None:
        said["rnnt_wer"] = [result.rnnt or [] for result in evaluation.trials]
    references = []
    for result in evaluation.trials:
        if result.trial.sentence is None:
            raise ValueError(
                f"{result.trial.name} has no sentence to compare words with; leave data.lexicon "
                "empty to train without word error rates"
            )
        references.append(result.trial.sentence)
    found = {}
    for name, phonemes in said.items():
        edits = [
            word_edits(reference, " ".join(words(ids)))
            for reference, ids in zip(references, phonemes, strict=True)
        ]
        found[name] = total(edits).rate
    return found
