from pathlib import Path

import h5py
import numpy as np
import pytest

from modessm_jax.data.hdf5 import read_trials
from modessm_jax.data.validation import DataError
from tests.data.layout import CHANNELS, write_split


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "it is empty"),
        (b"version https://git-lfs.github.com/spec/v1\n", "it is a Git LFS pointer"),
        (b"\n<html><body>Log in</body></html>", "it is a web page"),
        (b"PK\x03\x04", "it is a zip archive"),
        (b"\x89HDF\r\n\x1a\n" + bytes(9), "it may be truncated"),
        (b"what is this", "it may be truncated"),
    ],
)
def test_what_is_no_hdf5_file_is_named(tmp_path, data, told):
    file = tmp_path / "data_train.hdf5"
    file.write_bytes(data)
    with pytest.raises(DataError, match=f"cannot be opened as HDF5, {told}"):
        list(read_trials(file, "s", labels=True, corpora={}))


@pytest.fixture
def file(tmp_path) -> Path:
    return write_split(tmp_path, "s.1", "train", [5, 9])


def read(file: Path):
    trials = read_trials(file, "s.1", labels=True, corpora={})
    return [(trial, features()) for trial, features in trials]


def test_lengths_are_those_of_the_attributes_not_of_the_padded_arrays(file):
    (first, features), (second, _) = read(file)
    assert (first.bins, second.bins) == (5, 9)
    assert features.shape == (5, CHANNELS)
    assert np.abs(features).max() < 10
    assert first.labels is not None
    assert first.labels.tolist() == [1, 40]
    assert first.labels.dtype == np.int32
    assert second.sentence == "sentence 1"
    assert second.name == "s.1/block 1/trial 1"


def test_corpus_is_that_of_the_block(file):
    ((trial, _), *_) = read_trials(file, "s.1", labels=True, corpora={1: "Switchboard", 2: "x"})
    assert trial.corpus == "Switchboard"
    assert read(file)[0][0].corpus is None


def test_text_may_be_bytes(file):
    with h5py.File(file, "a") as handle:
        handle["trial_0001"].attrs["sentence_label"] = np.bytes_(b"stored as bytes")
    assert read(file)[1][0].sentence == "stored as bytes"


def replace(field: str, value):
    """Spoils a dataset of the second trial; None removes it."""

    def spoil(group: h5py.Group):
        del group[field]
        if value is not None:
            group[field] = value

    return field, spoil


def attribute(field: str, value):
    """Spoils an attribute of the second trial; None removes it."""

    def spoil(group: h5py.Group):
        del group.attrs[field]
        if value is not None:
            group.attrs[field] = value

    return field, spoil


def nested(field: str):
    def spoil(group: h5py.Group):
        del group[field]
        group.create_group(field)

    return field, spoil


@pytest.mark.parametrize(
    ("field_and_spoil", "words"),
    [
        (replace("input_features", None), "the dataset is missing"),
        (replace("input_features", np.zeros((12, 4), np.int32)), "is of type int32"),
        (replace("input_features", np.zeros(12, np.float32)), "has 1 axes"),
        (replace("input_features", np.zeros((12, 0), np.float32)), "has no channels"),
        (nested("input_features"), "is a group where a dataset belongs"),
        (replace("seq_class_ids", None), "the dataset is missing"),
        (replace("seq_class_ids", np.ones(30, np.float32)), "is of type float32"),
        (replace("seq_class_ids", np.ones((30, 1), np.int32)), "has 2 axes"),
        (replace("seq_class_ids", np.array([3, 0, 5])), "holds 0 at position 1 of 2"),
        (replace("seq_class_ids", np.array([3, 41, 5])), "holds 41 at position 1 of 2"),
        (replace("seq_class_ids", np.array([-3, 1])), "holds -3 at position 0 of 2"),
        (attribute("n_time_steps", None), "the attribute is missing"),
        (attribute("n_time_steps", 13), "is 13, but input_features holds 12 frames"),
        (attribute("n_time_steps", -1), "is -1, but"),
        (attribute("n_time_steps", "nine"), "not one whole number"),
        (attribute("n_time_steps", 8.5), "not one whole number"),
        (attribute("n_time_steps", np.inf), "not one whole number"),
        (attribute("n_time_steps", [8, 8]), "not one whole number"),
        (attribute("seq_len", None), "the attribute is missing"),
        (attribute("seq_len", 31), "is 31, but seq_class_ids holds 30 ids"),
        (attribute("seq_len", 10), "more labels than n_time_steps = 9 frames"),
        (attribute("block_num", None), "the attribute is missing"),
        (attribute("trial_num", None), "the attribute is missing"),
        (attribute("session", "s.2"), "is 's.2', but the folder is 's.1'"),
        (attribute("sentence_label", 5), "not text"),
    ],
)
def test_errors_name_file_trial_and_field(file, field_and_spoil, words):
    field, spoil = field_and_spoil
    with h5py.File(file, "a") as handle:
        spoil(handle["trial_0001"])
    with pytest.raises(DataError) as caught:
        read(file)
    assert str(caught.value).startswith(f"{file}, trial_0001, {field}: ")
    assert words in str(caught.value)


def test_a_trial_must_be_a_group(file):
    with h5py.File(file, "a") as handle:
        handle["trial_0002"] = np.zeros(3)
    with pytest.raises(DataError, match="trial_0002: is not a group"):
        read(file)


def test_a_trial_that_points_nowhere_is_named(file):
    with h5py.File(file, "a") as handle:
        handle["trial_0002"] = h5py.SoftLink("/gone")
    with pytest.raises(DataError, match="trial_0002: the group cannot be read"):
        read(file)


@pytest.mark.parametrize("kept", [1, 100, 3000])
def test_truncated_files_are_named(file, kept):
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(DataError, match="may be truncated") as caught:
        read(file)
    assert str(file) in str(caught.value)
    assert isinstance(caught.value.__cause__, OSError)
