import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modessm_jax import phonemes
from modessm_jax.phonemes import ARTICULATIONS, BLANK, CLASSES, DIPHONES, SILENCE, SYMBOLS

PHONEME_IDS = st.lists(st.integers(1, SILENCE), max_size=30)


def test_the_inventory_is_the_benchmarks():
    assert (BLANK, SILENCE, CLASSES) == (0, 40, 41)
    assert len(SYMBOLS) == CLASSES == len(set(SYMBOLS))
    assert SYMBOLS[BLANK] == "BLANK" and SYMBOLS[SILENCE] == " | "
    assert list(SYMBOLS[1:SILENCE]) == sorted(SYMBOLS[1:SILENCE])
    assert (SYMBOLS[1], SYMBOLS[39]) == ("AA", "ZH")


@given(st.integers(1, SILENCE), st.sampled_from(["", "0", "1", "2"]))
def test_symbols_and_ids_are_inverse_whatever_the_stress(index, stress):
    assert phonemes.phoneme_id(phonemes.symbols([index])[0] + stress) == index


@pytest.mark.parametrize("symbol", ["BLANK", "", "XX", "aa", "SIL"])
def test_unknown_symbols_are_refused(symbol):
    with pytest.raises(ValueError, match="ARPAbet"):
        phonemes.phoneme_id(symbol)


def test_a_sentence_of_the_recordings_is_spelled_as_there():
    words = [["DH", "IY0"], ["AA1", "K"]]
    np.testing.assert_array_equal(phonemes.sentence_ids(words), [10, 18, 40, 1, 20, 40])
    with pytest.raises(ValueError, match="word 1"):
        phonemes.sentence_ids([["DH"], []])


def test_every_phoneme_has_its_own_articulation():
    assert set(ARTICULATIONS) == set(SYMBOLS[1:])
    assert len(set(ARTICULATIONS.values())) == SILENCE
    for articulation in ARTICULATIONS.values():
        assert articulation.manner in phonemes.MANNERS and articulation.place in phonemes.PLACES
        assert (articulation.glide is not None) == (articulation.manner == "vowel")


@pytest.mark.parametrize(
    ("voiceless", "voiced"),
    [*zip("PTKFS", "BDGVZ", strict=True), ("TH", "DH"), ("SH", "ZH"), ("CH", "JH")],
)
def test_voicing_is_all_that_tells_a_pair_apart(voiceless, voiced):
    one, two = ARTICULATIONS[voiceless], ARTICULATIONS[voiced]
    assert (one.manner, one.place) == (two.manner, two.place)
    assert (one.voiced, two.voiced) == (False, True)


@given(PHONEME_IDS)
def test_the_current_phonemes_of_diphones_are_the_phonemes(ids):
    diphones = phonemes.diphone_ids(ids)
    np.testing.assert_array_equal(phonemes.diphone_phonemes()[diphones], ids)
    assert np.all((diphones > BLANK) & (diphones < DIPHONES))


@given(st.integers(1, SILENCE), st.integers(1, SILENCE))
def test_diphones_name_their_pair(first, second):
    start, pair = phonemes.diphone_ids([first, second]) - 1
    assert divmod(int(pair), 40) == (first - 1, second - 1)
    assert divmod(int(start), 40) == (SILENCE - 1, first - 1)


def test_diphone_classes_cover_every_phoneme_evenly_and_blank_once():
    current = phonemes.diphone_phonemes()
    assert current.shape == (DIPHONES,) and current[BLANK] == BLANK
    np.testing.assert_array_equal(np.bincount(current), [1] + [SILENCE] * SILENCE)


@pytest.mark.parametrize("ids", [[0], [3, 41], [-1]])
def test_diphones_of_what_is_no_phoneme_are_refused(ids):
    with pytest.raises(ValueError, match=r"1\.\.40"):
        phonemes.diphone_ids(ids)
