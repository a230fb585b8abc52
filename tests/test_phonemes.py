import itertools

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modessm_jax import phonemes
from modessm_jax.phonemes import BLANK, CLASSES, DIPHONES, SILENCE, SYMBOLS


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


@pytest.mark.parametrize("array", [np.asarray, jnp.asarray])
def test_every_pair_of_phonemes_has_a_class_of_its_own(array):
    pairs = list(itertools.product(range(1, CLASSES), repeat=2))
    previous, current = array(pairs).T
    ids = phonemes.diphone_id(previous, current)
    assert sorted(ids.tolist()) == list(range(1, DIPHONES))
    found = phonemes.by_previous(array([np.arange(DIPHONES)]))
    assert found.shape == (1, SILENCE, SILENCE)
    np.testing.assert_array_equal(found[0, previous - 1, current - 1], ids)
