import json
from dataclasses import replace

import h5py
import numpy as np
import pytest

from modessm_jax.data.recordings import read_recordings
from modessm_jax.simulate.calendar import Sizes, drawn
from modessm_jax.simulate.files import LABEL_WIDTH, write_dataset
from modessm_jax.simulate.trials import simulate

SIZES = Sizes(sessions=2, train=5, val=2, test=2, min_words=3, max_words=4)
PLAN = drawn(SIZES, electrodes=4, seed=5)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    root = tmp_path_factory.mktemp("data") / "simulated"
    lines = []
    bins = write_dataset(root, PLAN, overwrite=False, report=lines.append)
    return root, bins, lines


def test_files_hold_the_trials_in_the_layout_of_t15(written):
    root, bins, _ = written
    trials = [trial for block in simulate(PLAN) for trial in block]
    for split in ("train", "val", "test"):
        seen = 0
        for session in sorted({trial.session for trial in trials}):
            wanted = [t for t in trials if (t.session, t.split) == (session, split)]
            with h5py.File(root / session / f"data_{split}.hdf5") as file:
                assert list(file) == [f"trial_{n:04d}" for n in range(len(wanted))]
                for group, trial in zip(file.values(), wanted, strict=True):
                    features = group["input_features"][:]
                    assert features.dtype == np.float32
                    np.testing.assert_array_equal(features, trial.features)
                    assert group.attrs["n_time_steps"] == len(features)
                    assert group.attrs["session"] == session
                    assert group.attrs["block_num"] == trial.block
                    assert group.attrs["trial_num"] == trial.number
                    seen += len(features)
                    check_labels(group, trial)
        assert seen == bins[split]


def check_labels(group, trial):
    if trial.split == "test":
        assert set(group) == {"input_features"}
        assert set(group.attrs) == {"n_time_steps", "session", "block_num", "trial_num"}
        return
    length = group.attrs["seq_len"]
    ids, text = group["seq_class_ids"][:], group["transcription"][:]
    assert ids.dtype == text.dtype == np.int32
    assert ids.shape == text.shape == (LABEL_WIDTH,)
    np.testing.assert_array_equal(ids[:length], trial.phonemes)
    assert not ids[length:].any()
    assert bytes(text[text > 0].tolist()).decode("ascii") == group.attrs["sentence_label"]


def test_our_own_reader_reads_what_is_simulated(written):
    root, _, _ = written
    trials = [trial for block in simulate(PLAN) for trial in block]
    for split in ("train", "val", "test"):
        read = read_recordings(root, split)
        wanted = sorted((t for t in trials if t.split == split), key=lambda t: t.session)
        assert [(t.session, t.block, t.number) for t in read.trials] == [
            (t.session, t.block, t.number) for t in wanted
        ]
        for index, trial in enumerate(wanted):
            np.testing.assert_array_equal(read.features(index), trial.features)
            labels = read.trials[index].labels
            assert split == "test" if labels is None else labels.tolist() == list(trial.phonemes)


def test_modes_are_written_beside_the_recordings_only(written):
    root, _, _ = written
    truth = json.loads((root / "truth.json").read_text())
    trials = [trial for block in simulate(PLAN) for trial in block]
    assert truth == {
        session: {str(t.block): t.mode for t in trials if t.session == session}
        for session in {t.session for t in trials}
    }


def test_the_report_has_rate_and_time_left(written):
    lines = written[2]
    assert len(lines) == SIZES.sessions
    assert "9/18 trials" in lines[0] and lines[0].endswith("s left")


def test_an_earlier_data_set_is_replaced_only_on_request(written, tmp_path):
    smaller = drawn(replace(SIZES, sessions=1, test=0), electrodes=4, seed=5)
    write_dataset(tmp_path, PLAN, overwrite=False, report=print)
    with pytest.raises(ValueError, match="--overwrite"):
        write_dataset(tmp_path, smaller, overwrite=False, report=print)
    write_dataset(tmp_path, smaller, overwrite=True, report=print)
    files = sorted(p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file())
    first = "sim.2025.01.07"
    assert files == [f"{first}/data_train.hdf5", f"{first}/data_val.hdf5", "truth.json"]


def test_what_is_not_simulated_is_never_removed(tmp_path):
    precious = tmp_path / "t15.2023.08.11" / "data_train.hdf5"
    precious.parent.mkdir()
    precious.write_text("recorded")
    (tmp_path / "truth.json").write_text("{}")
    with pytest.raises(ValueError, match="no whole simulation wrote"):
        write_dataset(tmp_path, PLAN, overwrite=True, report=print)
    assert precious.read_text() == "recorded" and (tmp_path / "truth.json").exists()


def test_an_interrupted_file_never_appears_under_its_name(tmp_path, monkeypatch):
    def fails(*_):
        raise OSError("disk full")

    monkeypatch.setattr("modessm_jax.simulate.files._write_trial", fails)
    with pytest.raises(OSError, match="disk full"):
        write_dataset(tmp_path, PLAN, overwrite=False, report=print)
    assert not list(tmp_path.rglob("*.hdf5"))
