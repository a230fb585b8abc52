import pytest

from modessm_jax.phonemes import SILENCE, SYMBOLS
from modessm_jax.simulate.phonetics import ARTICULATIONS

MANNERS = (
    "stop",
    "affricate",
    "fricative",
    "nasal",
    "lateral",
    "approximant",
    "vowel",
    "silence",
)
PLACES = (
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


def test_every_phoneme_has_its_own_articulation():
    assert set(ARTICULATIONS) == set(SYMBOLS[1:])
    assert len(set(ARTICULATIONS.values())) == SILENCE
    for articulation in ARTICULATIONS.values():
        assert articulation.manner in MANNERS and articulation.place in PLACES
        assert (articulation.glide is not None) == (articulation.manner == "vowel")


@pytest.mark.parametrize(
    ("voiceless", "voiced"),
    [*zip("PTKFS", "BDGVZ", strict=True), ("TH", "DH"), ("SH", "ZH"), ("CH", "JH")],
)
def test_voicing_is_all_that_tells_a_pair_apart(voiceless, voiced):
    one, two = ARTICULATIONS[voiceless], ARTICULATIONS[voiced]
    assert (one.manner, one.place) == (two.manner, two.place)
    assert (one.voiced, two.voiced) == (False, True)
