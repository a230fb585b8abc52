"""Words without a search or a language model: the baseline that word decoders must beat."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby

from rapidfuzz import process
from rapidfuzz.distance import Levenshtein

from modessm_jax.phonemes import SILENCE


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
