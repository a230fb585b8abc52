"""Recordings of T15's own shape are read whole: ids, orders, holes, prompts, letters."""

import csv
from pathlib import Path

import h5py
import numpy as np
import pytest

from benchmarks.reading import write_recordings
from modessm_jax.data.recordings import read_recordings

ROWS = [  # as T15 has them: blocks out of order, holes, a first trial that is not 0, prompts
    ("t15.2024.06.14", 11, 1, "AY |", "I\u2019m"),
    ("t15.2024.06.14", 11, 3, "IH T | IH Z |", "It is, isn\u2019t it?"),
    ("t15.2024.06.14", 1, 4, "OW K EY |", "Ok\u00e9"),
    ("t15.2025.03.16", 1, 0, "D UW | N AH TH IH NG |", "[DO NOTHING]"),
]


def test_ids_orders_holes_and_prompts(tmp_path):
    keys = ("session", "block", "trial", "ground_truth_phonemes", "ground_truth_text")
    rows = [dict(zip(keys, map(str, row), strict=True)) | {"split": "train"} for row in ROWS]
    write_recordings(rows, tmp_path, gib=1e-4)
    split = read_recordings(tmp_path, "train")
    found = [(t.session, t.block, t.number, t.sentence) for t in split.trials]
    assert found == [(*row[:3], row[4]) for row in ROWS]
    assert split.channels == 512 and not split.excluded and not split.repaired
    labels = split.trials[0].labels
    assert labels is not None and labels.tolist() == [6, 40]


@pytest.mark.slow
def test_all_of_t15(shared_data: Path, tmp_path):
    with (shared_data / "recorded" / "t15_labels.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    write_recordings(rows, tmp_path, gib=0.2)
    split = read_recordings(tmp_path, "train")
    assert (len(split), len(split.sessions)) == (8072, 45)
    assert not split.excluded and not split.repaired
    expected = [r["ground_truth_text"] for r in rows if r["split"] == "train"]
    assert sorted(t.sentence or "" for t in split.trials) == sorted(expected)
    with h5py.File(tmp_path / "t15.2023.08.11" / "data_train.hdf5") as file:
        features = file["trial_0000/input_features"]
        assert isinstance(features, h5py.Dataset)
        np.testing.assert_array_equal(split.features(0), features[:])
