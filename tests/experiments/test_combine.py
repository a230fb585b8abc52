"""Lists of several systems, from the command line; calibrated on val, applied to test."""

import json

import h5py
import pytest

from experiments.combine import main
from modessm_jax.words.nbest import Candidate, Utterance, read_texts, write_nbest
from tests.data.layout import write_split


def lists(path, *trials):
    """Of each trial the (text, total) of its candidates; trial 0 is in block 1."""
    write_nbest(
        path,
        [
            Utterance("s", 1, number, tuple(Candidate(text, 0.0, 0.0, of) for text, of in found))
            for number, found in enumerate(trials)
        ],
    )
    return str(path)


@pytest.fixture
def root(tmp_path):
    """Val sentences are "sentence" and the trial's number, which is no letter."""
    for split, count in (("val", 4), ("test", 1)):
        write_split(tmp_path / "data", "s", split, [5] * count)
    return str(tmp_path / "data")


def test_rates_are_shown_of_each_and_all(tmp_path, root, capsys):
    right, wrong = [("sentence", 0.0)], [("silence", 0.0)]
    given = [
        lists(tmp_path / "one.jsonl", right, right, wrong, wrong),
        lists(tmp_path / "two.jsonl", right, wrong, right, wrong),
        lists(tmp_path / "three.jsonl", wrong, right, right, wrong),
    ]
    for rule in ("vote", "mbr"):
        out = tmp_path / f"{rule}.jsonl"
        main([*given, "--out", str(out), "--data_root", root, "--rule", rule])
        assert list(read_texts(out).values()) == ["sentence"] * 3 + ["silence"]
        shown = capsys.readouterr().out.splitlines()
        assert [line.split("  ")[0] for line in shown] == ["50.00 %"] * 3 + ["25.00 %"]
        assert shown[-1].endswith(f"{rule}.jsonl: 4 trials, by {rule}")


def test_test_lists_count_by_what_was_learned_on_val(tmp_path, root, capsys):
    # The first system's scores tell nothing, the second's all.
    first = [[("sentence", 0.0), ("no", -9.0)], [("no", 0.0), ("sentence", -9.0)]] * 2
    second = [[("sentence", 0.0), ("no", -1.0)]] * 4
    val = [lists(tmp_path / "a.jsonl", *first), lists(tmp_path / "b.jsonl", *second)]
    test = [
        lists(tmp_path / "c.jsonl", [("no", 0.0), ("yes", -9.0)]),
        lists(tmp_path / "d.jsonl", [("yes", 0.0), ("no", -1.0)]),
    ]
    given = ["--out", str(tmp_path / "test.jsonl"), "--data_root", root, "--split", "test"]
    main([*test, *given])
    assert list(read_texts(tmp_path / "test.jsonl").values()) == ["no"]  # the first of equals
    capsys.readouterr()
    main([*test, *given, "--calibrate_on", *val])
    assert list(read_texts(tmp_path / "test.jsonl").values()) == ["yes"]
    shown = capsys.readouterr().out
    assert shown.count("no WER") == 3 and "c.jsonl, scale 0.00" in shown


def test_trials_whose_sentence_is_withheld_are_named_and_the_others_scored(
    tmp_path, root, capsys, caplog
):
    with h5py.File(f"{root}/s/data_val.hdf5", "r+") as file:
        del file["trial_0002"].attrs["sentence_label"]
    right, wrong = [("sentence", 0.0), ("no", -1.0)], [("silence", 0.0), ("sentence", -1.0)]
    one = lists(tmp_path / "one.jsonl", right, wrong, wrong, wrong)
    given = ["--out", str(tmp_path / "out.jsonl"), "--data_root", root]
    main([one, *given, "--calibrate_on", one])
    assert [line.split("  ")[0] for line in capsys.readouterr().out.splitlines()] == ["66.67 %"] * 2
    assert len(read_texts(tmp_path / "out.jsonl")) == 4
    assert "1 of 4 trials have no sentence and are not scored: s/block 1/trial 2" in caplog.text


def test_what_does_not_fit_is_named(tmp_path, root, capsys):
    one = lists(tmp_path / "one.jsonl", [("a", 0.0)])
    two = lists(tmp_path / "two.jsonl", [("a", 0.0)], [("b", 0.0)])
    given = ["--out", str(tmp_path / "out.jsonl"), "--data_root", root]
    with pytest.raises(SystemExit, match="system 1 has no s/block 1/trial 1"):
        main([one, two, *given])
    with pytest.raises(SystemExit):
        main([one, one, *given, "--calibrate_on", one])
    assert "--calibrate_on needs 2 files" in capsys.readouterr().err
    strange = {"session": "x", "block_num": 1, "trial_num": 0, "candidates": []}
    (tmp_path / "three.jsonl").write_text(json.dumps(strange))
    with pytest.raises(SystemExit, match="1 trials are not in val"):
        main([str(tmp_path / "three.jsonl"), *given])
    assert not (tmp_path / "out.jsonl").exists()
