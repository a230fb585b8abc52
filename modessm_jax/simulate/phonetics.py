"""The articulation of every phoneme, for American English.

It follows the chart of the International Phonetic Association (revised 2020) and P. Ladefoged & K.
Johnson, *A Course in Phonetics* (7th ed., 2014), chapters 2 to 4: manner, place and voicing of the
consonants; height, backness and rounding of the vowels, diphthongs as a glide from one quality to
another, and whether a vowel is tense (can end a stressed syllable) or lax.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Quality:
    """A point of the vowel chart: height 0 (open) to 1 (close), backness 0 (front) to 1 (back)."""

    height: float
    backness: float
    rounded: bool = False


@dataclass(frozen=True)
class Articulation:
    """How one phoneme is produced.

    `place` of a vowel is the region of its starting quality. `glide` is the (start, end) of a
    vowel, equal for a monophthong, and None for consonants and silence.
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
