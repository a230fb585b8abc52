"""The command line that decodes into words, from logits to files, in this process."""

import json
from typing import Any

import numpy as np
import pytest

from experiments import decode
from experiments.decode import main
from modessm_jax.evaluation.official_logits import read_official_logits, write_official_logits
from modessm_jax.models.build import Functional
from modessm_jax.runs.load import Run
from modessm_jax.words.nbest import read_nbest
from tests.words.spoken import (
    LEXICON,
    SENTENCES,
    TRAINING,
    encodings,
    log_probabilities,
    write_data,
    write_lm,
)


@pytest.fixture(scope="module")
def given(tmp_path_factory) -> dict[str, str]:
    """The arguments every call needs, of val."""
    folder = tmp_path_factory.mktemp("given")
    for split, sentences in (("train", TRAINING), ("val", SENTENCES), ("test", SENTENCES[:2])):
        write_data(folder / "data", split, sentences)
        emissions = {("a", 1, k): log_probabilities(text) for k, text in enumerate(sentences)}
        write_official_logits(folder / split, emissions)
    LEXICON.write(folder / "lexicon")
    return {
        "--logits": str(folder / "val" / "val_metrics.pkl"),
        "--data_root": str(folder / "data"),
        "--lexicon": str(folder / "lexicon"),
        "--lm": str(write_lm(folder)),
        "--processes": "1",
        "--beam": "20",
    }


def arguments(given: dict[str, str], *more: str) -> list[str]:
    return [*(part for pair in given.items() for part in pair), *more]


def test_val_is_tuned_and_reported(given, tmp_path, capsys):
    out = tmp_path / "out"
    tuned = ["--tune", "--lm_weight", "0", "1", "2", "--word_score", "0", "--blank_penalty", "1"]
    main(arguments(given, "--out", str(out), *tuned, "--save_logits", str(tmp_path / "logits")))
    printed = capsys.readouterr().out
    assert "tuning: 3 choices of weights, 6 sentences" in printed
    assert "lexicon of 4 words, 2-gram lm.arpa; 0 of the words unknown to it" in printed
    assert "each half of val searched with the weights chosen on the other: lm_weight" in printed
    figures = json.loads((out / "val.json").read_text())["groups"]
    assert figures["all"]["wer"] == 0
    assert figures["greedy words"]["substitutions"] == 3  # "two" is read as "too"
    assert figures["seen in training"]["sentences"] == 5  # but not "too much two cats"
    assert [utterance.text for utterance in read_nbest(out / "val.jsonl")] == SENTENCES
    assert (out / "val.png").exists() and len(list(out.glob("tuning_*.png"))) == 1
    kept = read_official_logits(tmp_path / "logits" / "val_metrics.pkl")
    assert list(kept) == [utterance.key for utterance in read_nbest(out / "val.jsonl")]
    np.testing.assert_allclose(kept["a", 1, 4], log_probabilities(SENTENCES[4]), atol=1e-5)
    main(arguments(given, "--out", str(out), *tuned))
    assert "tuning:" not in capsys.readouterr().out  # it is remembered


def test_test_gets_predictions_with_the_weights_of_val(given, tmp_path, capsys):
    test = given | {"--logits": given["--logits"].replace("val/", "test/"), "--split": "test"}
    more = ["--out", str(tmp_path), "--tune", "--lm_weight", "0", "1", "2"]
    with pytest.raises(SystemExit, match="--val_logits"):
        main(arguments(test, *more))
    main(arguments(test, *more, "--val_logits", given["--logits"]))
    assert "weights chosen on val: lm_weight" in capsys.readouterr().out
    assert [utterance.text for utterance in read_nbest(tmp_path / "test.jsonl")] == SENTENCES[:2]
    assert "predictions only" in (tmp_path / "test.json").read_text()
    assert not (tmp_path / "test.png").exists()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--lm_weight", "1", "2"], "--lm_weight has 2 values"),
        (["--beam", "0"], "beam = 0"),
        (["--noise", "-1"], "--noise = -1"),
        (["--noise", "1"], "--noise needs --workdir"),
        (["--noise_seed", "1"], "--noise_seed needs --noise"),
        (["--denoise"], "--denoise needs --workdir"),
        (["--lm", "nowhere"], "nowhere"),
        (["--lexicon", "nowhere"], "nowhere"),
    ],
)
def test_what_is_unfit_is_named(given, tmp_path, more, message):
    with pytest.raises(SystemExit, match=message):
        main(arguments(given, "--out", str(tmp_path), *more))


def test_a_weight_of_no_n_gram_is_refused(given, tmp_path):
    without = {name: value for name, value in given.items() if name != "--lm"}
    assert without != given
    with pytest.raises(SystemExit, match="--lm_weight needs --lm"):
        main(arguments(without, "--out", str(tmp_path), "--lm_weight", "1"))


def test_a_runs_transducer_is_searched_and_kept_apart(given, tmp_path, monkeypatch, capsys):
    nothing: Any = None
    config = {"data": {"root": given["--data_root"], "sessions": []}}
    run = Run(config, {}, 0, Functional(nothing, {}, 1, None), nothing, 7)
    monkeypatch.setattr(decode, "load_run", lambda workdir: run)
    noises, denoised = [], []

    def encoded(run, split, data_root, choice, head, noise, denoise):
        del run, data_root, choice
        assert head == "rnnt"
        noises.append(noise)
        denoised.append(denoise)
        return encodings(split)

    monkeypatch.setattr(decode, "posteriors_of", encoded)
    of_run = {key: value for key, value in given.items() if key not in ("--logits", "--data_root")}
    tuned = ["--tune", "--lm_weight", "0", "1", "--word_score", "0"]
    test = ["--split", "test", "--workdir", str(tmp_path), "--head", "rnnt"]
    main(arguments(of_run, *test, *tuned))
    printed = capsys.readouterr().out
    assert "best model, step 7, rnnt head" in printed
    assert "tuning: 2 choices of weights, 2 sentences" in printed  # none of the blank's penalty
    assert [each.text for each in read_nbest(tmp_path / "words_rnnt/test.jsonl")] == SENTENCES[:2]
    main(arguments(of_run, *test, "--noise", "0.5", "--noise_seed", "3"))
    assert noises == [(0.0, 0), (0.0, 0), (0.5, 3)]
    assert "rnnt head, with noise of deviation 0.5" in capsys.readouterr().out
    assert (tmp_path / "words_rnnt_noisy_3/test.jsonl").exists()
    with pytest.raises(SystemExit, match="no flow bridge"):
        main(arguments(of_run, *test, "--denoise"))
    bridged = run._replace(functional=run.functional._replace(params={"flow": {}}))
    monkeypatch.setattr(decode, "load_run", lambda workdir: bridged)
    main(arguments(of_run, *test, "--denoise"))
    assert denoised == [False, False, False, True]
    assert "rnnt head, denoised" in capsys.readouterr().out
    assert (tmp_path / "words_rnnt_denoised/test.jsonl").exists()


def test_logits_are_of_a_ctc_head(given, tmp_path):
    rnnt = ["--head", "rnnt"]
    with pytest.raises(SystemExit, match="--head rnnt needs --workdir"):
        main(arguments(given, "--out", str(tmp_path), *rnnt))
    run = ["--workdir", str(tmp_path), "--lexicon", given["--lexicon"]]
    with pytest.raises(SystemExit, match="--save_logits writes the logits of the CTC head"):
        main([*run, *rnnt, "--save_logits", str(tmp_path)])


def test_a_missing_run_is_named(given, tmp_path):
    with pytest.raises(SystemExit, match="give the workdir of a training run"):
        main(["--workdir", str(tmp_path), "--lexicon", given["--lexicon"]])
    with pytest.raises(SystemExit, match="--logits need --data_root"):
        main(["--logits", given["--logits"], "--lexicon", given["--lexicon"]])
