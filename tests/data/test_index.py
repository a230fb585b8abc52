import h5py
import pytest

from modessm_jax.data.index import describe, read_index
from modessm_jax.data.validation import DataError
from tests.data.layout import write_split


def test_trials_are_in_order_of_session_and_recording_whatever_their_numbers(tmp_path):
    write_split(tmp_path, "s.2", "val", [4, 4])
    write_split(tmp_path, "s.1", "val", [4])
    file = write_split(tmp_path, "s.3", "val", [4, 4])
    with h5py.File(file, "a") as handle:
        handle["trial_0000"].attrs["block_num"] = 9
        handle["trial_0001"].attrs["trial_num"] = 0
    assert list(read_index(tmp_path, "val").items()) == [
        (("s.1", 1, 0), "sentence 0"),
        (("s.2", 1, 0), "sentence 0"),
        (("s.2", 1, 1), "sentence 1"),
        (("s.3", 9, 0), "sentence 0"),
        (("s.3", 1, 0), "sentence 1"),
    ]


def test_features_are_not_read_and_sentences_may_be_withheld(tmp_path):
    file = write_split(tmp_path, "s.1", "test", [4, 4])
    with h5py.File(file, "a") as handle:
        del handle["trial_0000/input_features"]
    assert read_index(tmp_path, "test") == {("s.1", 1, 0): None, ("s.1", 1, 1): None}


def test_a_doubled_trial_is_named(tmp_path):
    file = write_split(tmp_path, "s.1", "test", [4, 4])
    with h5py.File(file, "a") as handle:
        handle["trial_0001"].attrs["trial_num"] = 0
    with pytest.raises(DataError, match="trial_0001, trial_num: is 0 in block 1, and so is that"):
        read_index(tmp_path, "test")


def test_data_that_are_not_there_are_named(tmp_path):
    write_split(tmp_path, "s.1", "train", [4])
    with pytest.raises(DataError, match=r"holds no <session>/data_test\.hdf5"):
        read_index(tmp_path, "test")
    with pytest.raises(DataError, match="there is no split 'tset'"):
        read_index(tmp_path, "tset")


def test_a_key_reads_well():
    assert describe(("t15.2023.08.13", 5, 3)) == "t15.2023.08.13/block 5/trial 3"
