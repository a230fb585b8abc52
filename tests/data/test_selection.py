"""Trials, blocks and channels left out by name: in every split, from memory and from disk."""

import numpy as np
import pytest

from modessm_jax.data.recordings import read_recordings
from modessm_jax.data.selection import parse_channels, read_exclusions, take_channels
from modessm_jax.data.validation import EXCLUDE, DataError
from tests.data.layout import CHANNELS, write_split


@pytest.fixture
def root(tmp_path):
    write_split(tmp_path, "a", "train", [7, 8, 9])
    write_split(tmp_path, "b", "train", [5, 6])
    write_split(tmp_path, "b", "val", [10, 11])
    return tmp_path


def names(recordings):
    return [trial.name for trial in recordings.trials]


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_trial_and_a_block_can_be_left_out_in_every_split(root, split):
    whole = read_recordings(root, split)
    trial = whole.trials[1]
    for name in (f"{trial.session}/{trial.block}/{trial.number}", trial.name):
        rest = read_recordings(root, split, exclude=(name,))
        assert names(rest) == [one for one in names(whole) if one != trial.name]
        (finding,) = rest.excluded
        assert (finding.trial, finding.field) == (trial.name, EXCLUDE)
    if split == "train":
        in_block = [t.name for t in whole.trials if (t.session, t.block) == ("a", trial.block)]
        rest = read_recordings(root, split, exclude=(f"a/{trial.block}",))
        assert {finding.trial for finding in rest.excluded} == set(in_block)
        assert set(names(rest)) == set(names(whole)) - set(in_block)


def test_names_come_from_files_too(tmp_path):
    file = tmp_path / "bad.txt"
    file.write_text("# the patient coughed\na/block 1/trial 02\n\nb/3  # a whole block\n")
    assert read_exclusions((str(file), "a/1/2", "t15.2023.08.11/4")) == (
        "a/1/2",
        "b/3",
        "t15.2023.08.11/4",
    )
    for wrong in ("a", "a/x/1", "", "a/1/2/3/x"):
        with pytest.raises(DataError, match="SESSION/BLOCK/TRIAL"):
            read_exclusions((wrong,))
    with pytest.raises(DataError, match=r"none\.txt cannot be read"):
        read_exclusions((str(tmp_path / "none.txt"),))


@pytest.mark.parametrize("memory_gib", [8.0, 0.0])
def test_the_chosen_channels_are_those_of_the_file(root, memory_gib):
    whole = read_recordings(root, "train")
    some = read_recordings(root, "train", channels="0, 2-3", memory_gib=memory_gib)
    assert (whole.channels, some.channels) == (CHANNELS, 3)
    for index in range(len(whole)):
        np.testing.assert_array_equal(some.features(index), whole.features(index)[:, [0, 2, 3]])
    assert some.checksums != whole.checksums


def test_channels_are_parsed_or_refused(root):
    assert parse_channels("") is None and parse_channels(" ") is None
    chosen = parse_channels("0-2,5, 7 - 8")
    assert chosen is not None and chosen.tolist() == [0, 1, 2, 5, 7, 8]
    for wrong in ("3-1", "1,1", "5,2", "a", "1;2", "-4", ",", "1,"):
        with pytest.raises(DataError, match=r"data\.channels is"):
            parse_channels(wrong)
    with pytest.raises(DataError, match=rf"trial_0000: has {CHANNELS} channels, .* names 99"):
        read_recordings(root, "train", channels="0-99")
    assert chosen is not None
    values = np.arange(12.0).reshape(3, 4)
    assert take_channels(values, chosen[:2], "here").flags["C_CONTIGUOUS"]
    assert take_channels(values, None, "here") is values
