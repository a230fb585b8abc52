"""The job reads val only to choose weights, and notes where its figures come from."""

import dataclasses

import pytest

from modessm_jax.evaluation.posteriors import Posteriors
from modessm_jax.search.options import SearchOptions
from modessm_jax.words.decoder import Vocabulary
from modessm_jax.words.job import WordJob
from modessm_jax.words.tuning import Grid
from tests.words.spoken import LEXICON, SENTENCES, TRAINING, posteriors, write_lm


@pytest.fixture
def job(tmp_path) -> WordJob:
    vocabulary = Vocabulary(LEXICON, write_lm(tmp_path))
    return WordJob(vocabulary, SearchOptions(beam=20, lm_weight=1.0), None, tmp_path / "words")


def source(read: list[str]):
    def posteriors_of(split: str) -> Posteriors:
        read.append(split)
        return posteriors(split, labelled=split != "test")

    return posteriors_of


def test_given_weights_need_no_val(job):
    read: list[str] = []
    found = job.decode(source(read), "test", TRAINING)
    assert read == ["test"]
    assert found.notes[1] == "weights as given: lm_weight 1, word_score 0, blank_penalty 1"
    assert [result.text for result in found.results] == SENTENCES
    assert [path.name for path in job.write(found)] == ["test.jsonl", "test.json"]


def test_one_trial_without_a_sentence_leaves_the_others_their_rates(job):
    val = posteriors("val")
    val.trials[2] = dataclasses.replace(val.trials[2], sentence=None)
    tuned = dataclasses.replace(
        job, grid=Grid(lm_weight=(0.0, 1.0), word_score=(0.0,), blank_penalty=(1.0,))
    )
    for each in (job, tuned):
        found = each.decode(lambda _: val, "val", TRAINING)
        assert [result.text for result in found.results] == SENTENCES
        assert found.figures()["all"]["wer"] == 0 and found.figures()["all"]["sentences"] == 5
        assert [path.suffix for path in each.write(found)] == [".jsonl", ".json", ".png"]


def test_every_split_is_tuned_on_val(job):
    tuned = dataclasses.replace(
        job, grid=Grid(lm_weight=(0.0, 1.0), word_score=(0.0,), blank_penalty=(1.0,))
    )
    read: list[str] = []
    found = tuned.decode(source(read), "test", TRAINING)
    assert read == ["test", "val"]
    assert found.notes[1] == "weights chosen on val: lm_weight 1, word_score 0, blank_penalty 1"
    found = tuned.decode(source(read), "val", TRAINING)
    assert read == ["test", "val", "val"]
    assert found.notes[1].startswith("each half of val searched with the weights chosen on the")
    assert [result.seen for result in found.results] == [True, True, True, True, False, True]
    assert found.figures()["all"]["wer"] == 0
