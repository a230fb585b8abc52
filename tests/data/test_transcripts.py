"""Sentences of a split are read alone, normalised, and missed in plain words."""

import h5py
import pytest

from experiments.transcripts import main
from modessm_jax.data.transcripts import read_transcripts, vocabulary
from modessm_jax.data.validation import DataError
from tests.data.layout import write_split


@pytest.fixture
def root(tmp_path):
    for session in ("b", "a"):
        file = write_split(tmp_path, session, "train", [12, 12])
        with h5py.File(file, "a") as handle:
            handle["trial_0001"].attrs["sentence_label"] = f"Not so, {session}!"
    return tmp_path


def test_sentences_are_normalised_in_the_order_of_sessions(root):
    assert read_transcripts(root, "train") == ["sentence", "not so a", "sentence", "not so b"]
    assert read_transcripts(root, "train", ["b"]) == ["sentence", "not so b"]
    assert vocabulary(read_transcripts(root, "train", ["b"])) == ["b", "not", "sentence", "so"]


def test_missing_sentences_are_named(root):
    with pytest.raises(DataError, match="data_val"):
        read_transcripts(root, "val")
    with h5py.File(root / "b" / "data_train.hdf5", "a") as handle:
        del handle["trial_0000"].attrs["sentence_label"]
    with pytest.raises(DataError, match="the attribute is missing in b/block 1/trial 0"):
        read_transcripts(root, "train")


def test_the_job_prints_sentences_or_words(root, capsys):
    main(["--root", str(root)])
    assert capsys.readouterr().out == "sentence\nnot so a\nsentence\nnot so b\n"
    main(["--root", str(root), "--words"])
    assert capsys.readouterr().out.split() == ["a", "b", "not", "sentence", "so"]
    with pytest.raises(SystemExit, match="data_val"):
        main(["--root", str(root), "--split", "val"])
