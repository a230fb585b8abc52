"""The phoneme inventory: ids, symbols, and pairs of phonemes.

Ids follow the Brain-to-Text benchmarks: 0 is the CTC and RNN-T blank (and the padding of label
arrays), 1..39 are the ARPAbet phonemes in alphabetical order, 40 is the silence after every word.
"""

from collections.abc import Iterable
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
    """The symbol of every id."""
    return [SYMBOLS[index] for index in ids]


# A diphone is a phoneme together with the one before it (Li et al. 2024, arXiv:2411.10657); a
# sequence begins after a silence. Class 0 is still the blank, so that a sequence has as many
# diphones as phonemes, and diphone probabilities sum to phoneme probabilities.
_PHONEMES = CLASSES - 1
DIPHONES = 1 + _PHONEMES * _PHONEMES


def diphone_id(previous: Any, current: Any) -> Any:
    """The class of a phoneme after another; for numbers, or arrays of NumPy or JAX."""
    return 1 + _PHONEMES * (previous - 1) + (current - 1)


def by_previous(of_diphones: Any) -> Any:
    """Reshapes values by diphone: [..., diphones] to [..., 40, 40], without the blank.

    The first of the two axes is the previous phoneme minus 1, the second the current one minus 1.
    For arrays of NumPy or JAX.
    """
    return of_diphones[..., 1:].reshape(*of_diphones.shape[:-1], _PHONEMES, _PHONEMES)
