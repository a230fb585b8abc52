"""The index of recordings: a second start reads no features, and never uses facts of other data."""

import os

import h5py
import numpy as np
import pytest

from modessm_jax.data import hdf5
from modessm_jax.data.recordings import Recordings, read_recordings
from modessm_jax.data.validation import DataError
from tests.data.layout import write_split


def read(root, **given) -> Recordings:
    """The training split, with an index kept."""
    return read_recordings(root, "train", **{"index_folder": root} | given)


@pytest.fixture
def root(tmp_path):
    """Two files that were written long ago."""
    root = tmp_path / "data"
    for session, lengths in (("a", [7, 8, 2]), ("b", [5])):
        write_split(root, session, "train", lengths)
        change(root / session / "data_train.hdf5", (0, 1), 0, np.nan)
    age(root)
    return root


def change(file, place, channel, value):
    """Overwrites a value; `place` is the number of a trial and a bin."""
    with h5py.File(file, "a") as handle:
        features = handle[f"trial_{place[0]:04d}/input_features"]
        assert isinstance(features, h5py.Dataset)
        features[place[1], channel] = value


def age(root, seconds=100):
    for file in root.glob("*/*.hdf5"):
        stat = file.stat()
        os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns - seconds * 10**9))


@pytest.fixture
def reads(monkeypatch):
    """The trials whose features are read."""
    found = []
    former = hdf5._Reader.features
    monkeypatch.setattr(
        hdf5._Reader, "features", lambda self, bins: found.append(self.name) or former(self, bins)
    )
    return found


@pytest.mark.parametrize("memory_gib", [8.0, 0.0])
def test_a_second_start_reads_no_features_and_finds_the_same(root, reads, memory_gib):
    first = read(root, memory_gib=memory_gib)
    assert len(reads) == 4
    reads.clear()
    second = read(root, memory_gib=memory_gib)
    assert reads == []
    for name in ("channels", "excluded", "repaired", "checksums", "sessions"):
        assert getattr(first, name) == getattr(second, name)
    for one, other in zip(first.trials, second.trials, strict=True):
        assert one.labels is not None and other.labels is not None
        np.testing.assert_array_equal(one.labels, other.labels, strict=True)
        facts = [vars(trial) | {"labels": None} for trial in (one, other)]
        assert facts[0] == facts[1]
    for index in range(len(first)):
        np.testing.assert_array_equal(first.features(index), second.features(index))
        with pytest.raises(ValueError, match="read-only"):
            second.features(index)[:] = 0
    again = len(reads)
    second.features(0)
    assert len(reads) == again + (memory_gib == 0)


def test_a_file_that_changed_is_read_again_and_the_others_not(root, reads):
    before = read(root).checksums
    change(root / "a" / "data_train.hdf5", (1, 0), 0, 5.0)
    age(root, 50)
    reads.clear()
    after = read(root).checksums
    assert [a == b for a, b in zip(before, after, strict=True)] == [True, False, True]
    assert len(reads) == 4  # b's time was changed too


def test_a_file_that_was_just_written_is_not_indexed(root, reads):
    write_split(root, "c", "train", [6])
    read(root)
    reads.clear()
    read(root)
    assert reads == ["trial_0000"]


def test_a_change_that_the_index_cannot_see_is_found_when_the_trial_is_read(root):
    read(root)
    file = root / "b" / "data_train.hdf5"
    stat = file.stat()
    change(file, (0, 0), 1, 7.0)
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert file.stat().st_size == stat.st_size
    second = read(root)
    with pytest.raises(DataError, match="trial_0000, input_features: has other values now"):
        second.features(len(second) - 1)


def test_other_channels_and_excluded_trials_are_read_anew(root, reads):
    read(root, exclude=("b/1",))
    assert len(reads) == 3
    reads.clear()
    read(root)
    assert reads == ["trial_0000"]
    reads.clear()
    read(root, channels="0-1")
    assert len(reads) == 4


def test_the_index_of_a_read_only_root_is_in_the_given_folder(root, reads, tmp_path, monkeypatch):
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: path != root and access(path, mode))
    read(root, index_folder=tmp_path)
    assert not list(root.glob("*.json")) and (tmp_path / "index_train.json").exists()
    reads.clear()
    read(root, index_folder=tmp_path)
    assert reads == []
    read(root)
    assert len(reads) == 4


def test_only_a_job_with_a_folder_for_it_writes_an_index(root, reads):
    read(root, index_folder=None)
    assert not list(root.glob("*.json"))
    read(root)
    reads.clear()
    read(root, index_folder=None)
    assert reads == []


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 1}'])
def test_a_file_that_is_no_index_is_named(root, text):
    (root / "index_train.json").write_text(text)
    with pytest.raises(DataError, match=r"index_train\.json: is no index.*Delete it"):
        read(root)
