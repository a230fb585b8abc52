"""The one phoneme inventory: ids, articulation, and pairs of phonemes.

Ids follow the Brain-to-Text benchmarks: 0 is the CTC and RNN-T blank (and the padding of label
arrays), 1..39 are the ARPAbet phonemes in alphabetical order, 40 is the silence after every word.

Articulation follows the chart of the International Phonetic Association (revised 2020) and
P. Ladefoged & K. Johnson, *A Course in Phonetics* (7th ed., 2014), chapters 2 to 4, for General
American English: manner, place and voicing of the consonants; height, backness and rounding of the
vowels, diphthongs as a glide from one quality to another, and whether a vowel is tense (can end a
stressed syllable) or lax.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int32

BLANK = 0
SILENCE = 40
CLASSES = 41

_ARPABET = (
    "AA AE AH AO AW AY B CH D DH EH ER EY F G HH IH IY JH K L M N NG OW OY P R S SH T TH UH UW "
    "V W Y Z ZH"
)
SYMBOLS: tuple[str, ...] = ("BLANK", *_ARPABET.split(), " | ")

_IDS = {symbol: index for index, symbol in enumerate(SYMBOLS)}

MANNERS: tuple[str, ...] = (
    "stop",
    "affricate",
    "fricative",
    "nasal",
    "lateral",
    "approximant",
    "vowel",
    "silence",
)
PLACES: tuple[str, ...] = (
    "bilabial",
    "labiodental",
    "dental",
    "alveolar",
    "postalveolar",
    "palatal",
    "velar",
    "labial-velar",
    "glottal",
    "front",
    "central",
    "back",
    "silence",
)


@dataclass(frozen=True)
class Quality:
    """A point of the vowel chart: height 0 (open) to 1 (close), backness 0 (front) to 1 (back)."""

    height: float
    backness: float
    rounded: bool = False


@dataclass(frozen=True)
class Articulation:
    """How one phoneme is made.

    `place` of a vowel is the region of its starting quality; `glide` is the (start, end) of a
    vowel, equal for a monophthong, and None for all else.
    """

    manner: str
    place: str
    voiced: bool
    glide: tuple[Quality, Quality] | None = None
    rhotic: bool = False
    tense: bool = False


def _tense(start: Quality, end: Quality | None = None, rhotic: bool = False) -> Articulation:
    return Articulation("vowel", _region(start), True, (start, end or start), rhotic, tense=True)


def _lax(quality: Quality) -> Articulation:
    return Articulation("vowel", _region(quality), True, (quality, quality))


def _region(quality: Quality) -> str:
    return ("front", "central", "back")[round(2 * quality.backness)]


# The chart's seven heights are sixths of the way from open to close.
_NEAR_CLOSE_FRONT = Quality(5 / 6, 0.1)
_NEAR_CLOSE_BACK = Quality(5 / 6, 0.9, rounded=True)
_OPEN_CENTRAL = Quality(0.0, 0.5)

ARTICULATIONS: dict[str, Articulation] = {
    "AA": _tense(Quality(0.0, 1.0)),
    "AE": _lax(Quality(1 / 6, 0.0)),
    "AH": _lax(Quality(1 / 2, 0.5)),
    "AO": _tense(Quality(1 / 3, 1.0, rounded=True)),
    "AW": _tense(_OPEN_CENTRAL, _NEAR_CLOSE_BACK),
    "AY": _tense(_OPEN_CENTRAL, _NEAR_CLOSE_FRONT),
    "B": Articulation("stop", "bilabial", True),
    "CH": Articulation("affricate", "postalveolar", False),
    "D": Articulation("stop", "alveolar", True),
    "DH": Articulation("fricative", "dental", True),
    "EH": _lax(Quality(1 / 3, 0.0)),
    "ER": _tense(Quality(1 / 2, 0.5), rhotic=True),
    "EY": _tense(Quality(2 / 3, 0.0), _NEAR_CLOSE_FRONT),
    "F": Articulation("fricative", "labiodental", False),
    "G": Articulation("stop", "velar", True),
    "HH": Articulation("fricative", "glottal", False),
    "IH": _lax(_NEAR_CLOSE_FRONT),
    "IY": _tense(Quality(1.0, 0.0)),
    "JH": Articulation("affricate", "postalveolar", True),
    "K": Articulation("stop", "velar", False),
    "L": Articulation("lateral", "alveolar", True),
    "M": Articulation("nasal", "bilabial", True),
    "N": Articulation("nasal", "alveolar", True),
    "NG": Articulation("nasal", "velar", True),
    "OW": _tense(Quality(2 / 3, 1.0, rounded=True), _NEAR_CLOSE_BACK),
    "OY": _tense(Quality(1 / 3, 1.0, rounded=True), _NEAR_CLOSE_FRONT),
    "P": Articulation("stop", "bilabial", False),
    "R": Articulation("approximant", "alveolar", True, rhotic=True),
    "S": Articulation("fricative", "alveolar", False),
    "SH": Articulation("fricative", "postalveolar", False),
    "T": Articulation("stop", "alveolar", False),
    "TH": Articulation("fricative", "dental", False),
    "UH": _lax(_NEAR_CLOSE_BACK),
    "UW": _tense(Quality(1.0, 1.0, rounded=True)),
    "V": Articulation("fricative", "labiodental", True),
    "W": Articulation("approximant", "labial-velar", True),
    "Y": Articulation("approximant", "palatal", True),
    "Z": Articulation("fricative", "alveolar", True),
    "ZH": Articulation("fricative", "postalveolar", True),
    " | ": Articulation("silence", "silence", False),
}


def phoneme_id(symbol: str) -> int:
    """The id of an ARPAbet symbol, whose stress digit is ignored ("AH0" and "AH" are one).

    Raises:
        ValueError: `symbol` is not one of the 39 phonemes or ` | `.
    """
    index = _IDS.get(symbol.rstrip("012"), BLANK)
    if index == BLANK:
        raise ValueError(f"{symbol!r} is not an ARPAbet phoneme; the known ones are {SYMBOLS[1:]}")
    return index


def sentence_ids(pronunciations: Iterable[Iterable[str]]) -> Int32[np.ndarray, "phonemes"]:
    """Ids of a sentence given as one pronunciation per word, with silence after every word.

    Raises:
        ValueError: a symbol is unknown, or a word has no phonemes.
    """
    ids: list[int] = []
    for word, pronunciation in enumerate(pronunciations):
        sounds = [phoneme_id(symbol) for symbol in pronunciation]
        if not sounds:
            raise ValueError(f"word {word} of the sentence has no phonemes")
        ids += [*sounds, SILENCE]
    return np.array(ids, np.int32)


def symbols(ids: Iterable[int]) -> list[str]:
    """The symbol of every id, for people to read."""
    return [SYMBOLS[index] for index in ids]


# A diphone is a phoneme together with the one before it (Li et al. 2024, arXiv:2411.10657); a
# sequence starts out of silence. Class 0 stays the blank, so that the diphones of a phoneme
# sequence number the same as its phonemes and their probabilities sum to phoneme probabilities.
_PHONEMES = CLASSES - 1
DIPHONES = 1 + _PHONEMES * _PHONEMES


def diphone_id(previous: Any, current: Any) -> Any:
    """The class of a phoneme after another; numbers, or arrays of NumPy or JAX."""
    return 1 + _PHONEMES * (previous - 1) + (current - 1)


def by_previous(of_diphones: Any) -> Any:
    """What stands at each `diphone_id`, without the blank: [..., diphones] to [..., 40, 40].

    The first of the two axes is the previous phoneme less 1, the second the current one less 1. For
    arrays of NumPy or JAX.
    """
    return of_diphones[..., 1:].reshape(*of_diphones.shape[:-1], _PHONEMES, _PHONEMES)
