"""Recordings of a split: order, sessions, bad trials, errors; its index and its transcripts."""

import pickle
from pathlib import Path

import h5py
import numpy as np
import pytest

from experiments.transcripts import main
from modessm_jax.data.recordings import (
    describe,
    list_trials,
    read_recordings,
    read_transcripts,
)
from modessm_jax.data.validation import DataError
from tests.data.layout import CHANNELS, write_split, write_trial


@pytest.fixture
def root(tmp_path) -> Path:
    write_split(tmp_path, "t15.2023.08.13", "train", [5, 6])
    write_split(tmp_path, "t15.2023.08.11", "train", [7, 8, 9])
    write_split(tmp_path, "t15.2023.08.13", "val", [10])
    write_split(tmp_path, "t15.2023.08.12", "test", [11])
    return tmp_path


def spoil(file: Path, channels: dict[int, float]) -> None:
    """Overwrites channels of the first trial; NaN and Inf in one bin, the rest in all."""
    with h5py.File(file, "a") as handle:
        features = handle["trial_0000/input_features"]
        assert isinstance(features, h5py.Dataset)
        for channel, value in channels.items():
            if np.isfinite(value):
                features[:, channel] = value
            else:
                features[1, channel] = value


def test_sessions_mean_the_same_in_every_split(root):
    train, val, test = (read_recordings(root, split) for split in ("train", "val", "test"))
    names = ("t15.2023.08.11", "t15.2023.08.12", "t15.2023.08.13")
    assert train.sessions == val.sessions == test.sessions == names
    assert train.session_ids.tolist() == [0, 0, 0, 2, 2]
    assert train.bins.tolist() == [7, 8, 9, 5, 6]
    assert val.session_ids.tolist() == [2]
    blocks = [(trial.session, trial.block) for trial in train.trials]
    assert len(set(blocks)) > 1
    for first, one in zip(blocks, train.block_ids, strict=True):
        assert [block == first for block in blocks] == (train.block_ids == one).tolist()
    assert (train.labelled, val.labelled, test.labelled) == (True, True, False)
    subset = read_recordings(root, "train", sessions=("t15.2023.08.13",))
    assert subset.sessions == names
    assert subset.session_ids.tolist() == [2, 2]


def test_features_are_the_same_from_memory_from_disk_and_in_a_pickled_copy(root):
    kept = read_recordings(root, "train")
    lazy = read_recordings(root, "train", memory_gib=0.0)
    for index in range(len(kept)):
        features = kept.features(index)
        assert features.shape == (kept.trials[index].bins, CHANNELS)
        assert np.abs(features).max() < 10
        for other in (lazy, pickle.loads(pickle.dumps(lazy)), pickle.loads(pickle.dumps(kept))):
            np.testing.assert_array_equal(features, other.features(index))
    with pytest.raises(ValueError, match="read-only"):
        kept.features(0)[:] = 0
    assert len(pickle.dumps(kept)) < len(pickle.dumps(lazy)) + 200


def test_corpora_come_from_the_table(root, tmp_path):
    table = tmp_path / "blocks.csv"
    table.write_text("Date,Block number,Corpus\n2023-08-13,1,Switchboard\n2023-08-11,2,Harvard\n")
    trials = read_recordings(root, "train", table=table).trials
    assert [trial.corpus for trial in trials] == [None, None, None, "Switchboard", "Switchboard"]


@pytest.mark.parametrize(
    ("channels", "reason"),
    [
        ({0: 4.0, 1: 4.0, 2: 0.0}, "3 dead and 0 non-finite channels of 20"),
        ({0: np.nan, 1: np.inf, 2: -np.inf}, "0 dead and 3 non-finite channels of 20"),
        ({0: 4.0, 1: np.nan, 2: 1.0}, "2 dead and 1 non-finite channels of 20"),
    ],
)
def test_bad_trials_are_left_out_of_training_by_name(root, channels, reason):
    spoil(root / "t15.2023.08.11" / "data_train.hdf5", channels)
    recordings = read_recordings(root, "train")
    assert len(recordings) == 4
    (left_out,) = recordings.excluded
    assert left_out.trial == "t15.2023.08.11/block 1/trial 0"
    assert (left_out.field, left_out.reason) == ("input_features", reason)
    assert recordings.bins.tolist() == [8, 9, 5, 6]
    assert recordings.features(0).shape == (8, CHANNELS)


@pytest.mark.parametrize("bins", [0, 2, 3001])
def test_trials_too_short_or_too_long_are_left_out_of_training_only(root, bins):
    file = root / "t15.2023.08.11" / "data_train.hdf5"
    write_trial(file, 3, bins=bins, labels=[1, 2, 3])
    (left_out,) = read_recordings(root, "train").excluded
    assert left_out.trial == "t15.2023.08.11/block 1/trial 3"
    assert left_out.field == "n_time_steps"
    assert str(bins) in left_out.reason
    file.rename(file.with_name("data_val.hdf5"))
    recordings = read_recordings(root, "val")
    assert recordings.bins.tolist() == [7, 8, 9, bins, 10]
    assert not recordings.excluded


@pytest.mark.parametrize("memory_gib", [0.0, 1.0])
@pytest.mark.parametrize("split", ["train", "val"])
def test_a_few_bad_values_read_as_zero_and_are_named(root, split, memory_gib):
    spoil(root / "t15.2023.08.13" / f"data_{split}.hdf5", {4: np.nan, 6: -np.inf})
    recordings = read_recordings(root, split, memory_gib=memory_gib)
    assert not recordings.excluded
    (repaired,) = recordings.repaired
    assert repaired.trial == "t15.2023.08.13/block 1/trial 0"
    assert repaired.reason == "0 dead and 2 non-finite channels of 20"
    features = recordings.features({"train": 3, "val": 0}[split])
    assert np.isfinite(features).all()
    assert features[1, [4, 6]].tolist() == [0.0, 0.0]
    assert np.count_nonzero(features == 0) == 2


@pytest.mark.parametrize("value", [np.nan, 1.0])
def test_a_validation_trial_without_one_good_channel_is_kept(root, value):
    file = root / "t15.2023.08.13" / "data_val.hdf5"
    with h5py.File(file, "a") as handle:
        stored = handle["trial_0000/input_features"]
        assert isinstance(stored, h5py.Dataset)
        stored[:] = value
    recordings = read_recordings(root, "val")
    assert recordings.bins.tolist() == [10]
    assert (recordings.features(0) == np.nan_to_num(value)).all()
    assert len(recordings.repaired) == int(np.isnan(value))


def test_training_data_without_one_good_trial_are_an_error(tmp_path):
    write_split(tmp_path, "s", "train", [2, 1])
    with pytest.raises(DataError, match="none of the 2 train trials is usable") as caught:
        read_recordings(tmp_path, "train")
    assert "s/block 1/trial 0, n_time_steps: 2 bins, under 50 ms" in str(caught.value)


def test_a_missing_root_names_the_sources_of_data(tmp_path):
    for root in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(DataError) as caught:
            read_recordings(root, "train")
        message = str(caught.value)
        assert message.startswith(f"{root}: ")
        for words in (
            "10.5061/dryad.dncjsxm85",
            "10.5061/dryad.x69p8czpq",
            "python -m experiments.simulate --out DIR",
        ):
            assert words in message


@pytest.mark.parametrize("read", [read_recordings, list_trials, read_transcripts])
@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("unpacked", r"one folder too high. Give .*/unpacked/hdf5_data_final[,.]"),
        ("", r"2 folders too high. Give .*/unpacked/hdf5_data_final[,.]"),
        ("unpacked/hdf5_data_final/t15.1", r"folder of one session. Give .*/hdf5_data_final[,.]"),
        (
            "unpacked/hdf5_data_final/t15.1/data_train.hdf5",
            r"one file of a session. Give .*_final[,.]",
        ),
        ("gone", "there is no such folder"),
        ("mat", r"holds MATLAB files. Convert .*experiments.convert_t12 --mat .*/mat --out ROOT"),
        ("packed", r"holds t15_hdf5.zip. Unpack it"),
    ],
)
def test_a_wrong_root_is_told_from_the_right_one(tmp_path, read, given, told):
    root = tmp_path / "unpacked" / "hdf5_data_final"
    write_split(root, "t15.1", "train", [5])
    for file in ("mat/train/t12.mat", "packed/t15_hdf5.zip"):
        (tmp_path / file).parent.mkdir(parents=True)
        (tmp_path / file).touch()
    with pytest.raises(DataError, match=told):
        read(tmp_path / given, "train")


@pytest.mark.parametrize("read", [read_recordings, list_trials, read_transcripts])
def test_a_split_that_no_session_has_is_not_called_missing_data(tmp_path, read):
    write_split(tmp_path, "t15.1", "train", [5])
    with pytest.raises(DataError, match=r"data_val\.hdf5.*there is data_train\.hdf5") as caught:
        read(tmp_path, "val")
    assert "Recordings are not part of this project" not in str(caught.value)


def test_choices_that_do_not_exist_are_named(root):
    with pytest.raises(DataError, match="no split 'dev'"):
        read_recordings(root, "dev")
    with pytest.raises(DataError, match=r"has no session t15\.2024.*It holds t15\.2023\.08\.11"):
        read_recordings(root, "train", sessions=("t15.2024", "t15.2023.08.11"))
    with pytest.raises(DataError, match=r"no session read has a data_val\.hdf5"):
        read_recordings(root, "val", sessions=("t15.2023.08.12",))


def test_channels_must_agree(root):
    file = root / "t15.2023.08.13" / "data_train.hdf5"
    with pytest.raises(DataError, match="has 20 channels, but the model was built for 512"):
        read_recordings(root, "train", expect_channels=512)
    write_trial(file, 2, channels=7, labels=[1])
    with pytest.raises(DataError) as caught:
        read_recordings(root, "train")
    assert str(caught.value).startswith(f"{file}, trial_0002, input_features: has 7 channels")
    assert f"{root}/t15.2023.08.11/data_train.hdf5, trial_0000 has 20" in str(caught.value)


def test_labels_are_for_all_trials_of_a_split_or_none(root):
    file = root / "t15.2023.08.12" / "data_test.hdf5"
    write_trial(file, 1, labels=[1])
    with pytest.raises(DataError) as caught:
        read_recordings(root, "test")
    assert str(caught.value).startswith(f"{file}, trial_0000, seq_class_ids: is missing, but")


def test_unlabelled_training_data_are_refused(root):
    write_trial(root / "t15.2023.08.13" / "data_train.hdf5", 2)
    with pytest.raises(DataError, match="trial_0002, seq_class_ids: the dataset is missing"):
        read_recordings(root, "train")


def test_damage_that_opening_does_not_show_is_named(root):
    file = root / "t15.2023.08.13" / "data_val.hdf5"
    values = np.random.default_rng(3).normal(size=(10, CHANNELS)).astype(np.float32)
    with h5py.File(file, "a") as handle:
        del handle["trial_0000/input_features"]
        handle.create_dataset(
            "trial_0000/input_features", data=values, fletcher32=True, chunks=True
        )
    content = bytearray(file.read_bytes())
    place = content.index(values.tobytes()[:64])
    content[place + 7] ^= 4
    file.write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_recordings(root, "val")
    assert str(caught.value).startswith(f"{file}, trial_0000, input_features: the values cannot")


def test_a_file_that_vanishes_is_named(root):
    recordings = read_recordings(root, "val", memory_gib=0.0)
    file = root / "t15.2023.08.13" / "data_val.hdf5"
    file.unlink()
    with pytest.raises(DataError) as caught:
        recordings.features(0)
    assert str(file) in str(caught.value)


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("spoken_digits", (864, 108, 109)),
        pytest.param("grid_sentences", (800, 100, 100), marks=pytest.mark.slow),
        pytest.param("subvocal_emg", (1600, 240, 240), marks=pytest.mark.slow),
    ],
)
def test_real_recordings_are_read_whole(shared_data, name, counts):
    for split, count in zip(("train", "val", "test"), counts, strict=True):
        recordings = read_recordings(shared_data / name, split)
        assert len(recordings) == count
        assert not recordings.excluded
        assert not recordings.repaired
        assert recordings.labelled == (split != "test")


def test_trials_are_in_order_of_session_and_recording_whatever_their_numbers(tmp_path):
    write_split(tmp_path, "s.2", "val", [4, 4])
    write_split(tmp_path, "s.1", "val", [4])
    file = write_split(tmp_path, "s.3", "val", [4, 4])
    with h5py.File(file, "a") as handle:
        handle["trial_0000"].attrs["block_num"] = 9
        handle["trial_0001"].attrs["trial_num"] = 0
    assert list(list_trials(tmp_path, "val").items()) == [
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
    assert list_trials(tmp_path, "test") == {("s.1", 1, 0): None, ("s.1", 1, 1): None}


def test_a_doubled_trial_is_named(tmp_path):
    file = write_split(tmp_path, "s.1", "test", [4, 4])
    with h5py.File(file, "a") as handle:
        handle["trial_0001"].attrs["trial_num"] = 0
    with pytest.raises(DataError, match="trial_0001, trial_num: is 0 in block 1, and so is that"):
        list_trials(tmp_path, "test")


def test_data_that_are_not_there_are_named(tmp_path):
    write_split(tmp_path, "s.1", "train", [4])
    with pytest.raises(DataError, match=r"no session read has a data_test\.hdf5"):
        list_trials(tmp_path, "test")
    with pytest.raises(DataError, match="there is no split 'tset'"):
        list_trials(tmp_path, "tset")


def test_a_key_in_words():
    assert describe(("t15.2023.08.13", 5, 3)) == "t15.2023.08.13/block 5/trial 3"


@pytest.fixture
def spoken_root(tmp_path):
    for session in ("b", "a"):
        file = write_split(tmp_path, session, "train", [12, 12])
        with h5py.File(file, "a") as handle:
            handle["trial_0001"].attrs["sentence_label"] = f"Not so, {session}!"
    return tmp_path


def test_sentences_are_cleaned_in_the_order_of_sessions(spoken_root):
    assert read_transcripts(spoken_root, "train") == [
        "sentence",
        "not so a",
        "sentence",
        "not so b",
    ]
    assert read_transcripts(spoken_root, "train", ["b"]) == ["sentence", "not so b"]


def test_missing_sentences_are_named(spoken_root, caplog):
    with pytest.raises(DataError, match="data_val"):
        read_transcripts(spoken_root, "val")
    with h5py.File(spoken_root / "b" / "data_train.hdf5", "a") as handle:
        del handle["trial_0000"].attrs["sentence_label"]
    assert read_transcripts(spoken_root, "train") == ["sentence", "not so a", "not so b"]
    assert "1 of 4 trials have no sentence and are not scored: b/block 1/trial 0" in caplog.text
    assert "train: 1 words with digits" in caplog.text and ": 0 (1); write them" in caplog.text
    with h5py.File(spoken_root / "b" / "data_train.hdf5", "a") as handle:
        del handle["trial_0001"].attrs["sentence_label"]
    with pytest.raises(DataError, match="the attribute is missing in all 2 trials"):
        read_transcripts(spoken_root, "train", ["b"])


def test_typographic_sentences_keep_their_words(spoken_root):
    with h5py.File(spoken_root / "b" / "data_train.hdf5", "a") as handle:
        handle["trial_0000"].attrs["sentence_label"] = "We\u2019re \u2018here\u2019\u2014now."
    assert read_transcripts(spoken_root, "train", ["b"])[0] == "we're here now"


def test_the_job_prints_sentences_or_words(spoken_root, capsys):
    main(["--data_root", str(spoken_root)])
    assert capsys.readouterr().out == "sentence\nnot so a\nsentence\nnot so b\n"
    main(["--data_root", str(spoken_root), "--words"])
    assert capsys.readouterr().out.split() == ["a", "b", "not", "sentence", "so"]
    with pytest.raises(SystemExit, match="data_val"):
        main(["--data_root", str(spoken_root), "--split", "val"])
