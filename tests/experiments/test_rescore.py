"""Lists re-ranked with an n-gram, from the command line."""

import h5py
import pytest

from modessm_jax.words.nbest import Candidate, Utterance, read_nbest, write_nbest
from tests.data.layout import write_split

pytest.importorskip("kenlm")
from experiments.rescore import main

ARPA = """\\data\\
ngram 1=5
ngram 2=1

\\1-grams:
-99\t<s>\t0
-1\t</s>
-1\tsentence\t0
-3\tsentient\t0
-4\t<unk>

\\2-grams:
-0.5\t<s> sentence

\\end\\
"""


@pytest.fixture
def files(tmp_path):
    """Val has the sentences "sentence", decoded as "sentient"; an n-gram prefers the truth."""
    (tmp_path / "lm.arpa").write_text(ARPA)
    write_split(tmp_path / "data", "s", "val", [5, 5])
    candidates = (Candidate("sentient", -3.0, -5.0, -5.0), Candidate("sentence", -3.5, -5.0, -5.5))
    write_nbest(tmp_path / "val.jsonl", [Utterance("s", 1, n, candidates) for n in range(2)])
    return tmp_path


def run(files, *arguments):
    lists = [str(files / "val.jsonl"), "--model", str(files / "lm.arpa"), "--lm_weight", "0.4"]
    main([*lists, "--out", str(files / "out.jsonl"), *arguments])
    return read_nbest(files / "out.jsonl")


def test_alpha_is_given_or_chosen_on_val(files, capsys):
    assert run(files, "--alpha", "0") == read_nbest(files / "val.jsonl")
    assert "alpha 0; 0 of 2 trials have another" in capsys.readouterr().out
    tuned = run(files, "--tune_on", str(files / "val.jsonl"), "--data_root", str(files / "data"))
    assert [found.text for found in tuned] == ["sentence", "sentence"]
    # 0.5 nats are made up for by 0.4 alpha 2.5 ln(10) = 2.3 alpha.
    assert "alpha 0.25; 2 of 2 trials" in capsys.readouterr().out


def test_alpha_is_chosen_on_the_trials_that_have_a_sentence(files, caplog):
    with h5py.File(files / "data" / "s" / "data_val.hdf5", "r+") as file:
        del file["trial_0001"].attrs["sentence_label"]
    tuned = run(files, "--tune_on", str(files / "val.jsonl"), "--data_root", str(files / "data"))
    assert [found.text for found in tuned] == ["sentence", "sentence"]
    assert "1 of 2 trials have no sentence and are not scored: s/block 1/trial 1" in caplog.text


def test_an_ngram_that_knows_none_of_the_words_is_refused(files):
    (files / "lm.arpa").write_text(ARPA.replace("senten", "x").replace("sentient", "y"))
    with pytest.raises(SystemExit, match=r"lm\.arpa lacks 2 of 2 words"):
        run(files, "--alpha", "0.5")


def test_what_does_not_fit_is_named(files, capsys):
    with pytest.raises(SystemExit):
        run(files, "--tune_on", str(files / "val.jsonl"))
    with pytest.raises(SystemExit):
        run(files, "--alpha", "0", "--data_root", str(files))
    assert capsys.readouterr().err.count("--tune_on and --data_root go together") == 2
    with pytest.raises(SystemExit, match="Is a directory"):
        run(files, "--alpha", "0", "--out", str(files))
    with pytest.raises(SystemExit, match=r"alpha = 2\.0: give a share"):
        run(files, "--alpha", "2")
    (files / "lm.arpa").unlink()
    with pytest.raises(SystemExit, match=r"lm\.arpa: no such file"):
        run(files, "--alpha", "0.5")
