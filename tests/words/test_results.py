"""Words are counted as the benchmarks count them, in groups that add up."""

import dataclasses
from collections import Counter

import pytest

from modessm_jax.search.options import WordHypothesis
from modessm_jax.text import total
from modessm_jax.words.decoder import Found
from modessm_jax.words.results import GREEDY, SEEN, WordEvaluation, WordResult, aligned
from tests.words.spoken import LEXICON, posteriors

SAID = ["two cats", "too much", "two cats too much", "much", "too much two cats", "dogs"]
READ = ["too cats", "too much", "two cats much", "much much", "too much two cats", "cats"]


def found(*sentences: str) -> Found:
    hypotheses = [
        WordHypothesis(tuple(text.split()), -1.0, -2.0, -3.0 - rank, ())
        for rank, text in enumerate(sentences)
    ]
    return Found(hypotheses, 0.01)


def evaluation(labelled: bool = True) -> WordEvaluation:
    """Six trials; of the first the right sentence comes second; half of them seen."""
    trials = [
        dataclasses.replace(trial, sentence=f"{said.capitalize()}!" if labelled else None)
        for trial, said in zip(posteriors().trials, SAID, strict=True)
    ]
    lists = [found(READ[0], SAID[0]), *map(found, READ[1:])]
    results = [
        WordResult(trial, each, "much", number < 3)
        for number, (trial, each) in enumerate(zip(trials, lists, strict=True))
    ]
    return WordEvaluation("val", results, frozenset(LEXICON.words), ("a note",))


def test_figures_of_all():
    rows = evaluation().figures()
    row = rows["all"]
    assert (row["substitutions"], row["insertions"], row["deletions"]) == (2, 1, 1)
    assert (row["words"], row["sentences"]) == (14, 6)
    assert row["wer"] == pytest.approx(4 / 14)
    assert row["mean_of_sentences"] == pytest.approx((1 / 2 + 1 / 4 + 1 + 1) / 6)
    assert row["sentence_error_rate"] == pytest.approx(4 / 6)
    assert row["oracle_wer"] == pytest.approx(3 / 14)
    low, high = row["interval"]
    assert low < row["wer"] < high
    assert rows[GREEDY]["wer"] == pytest.approx((2 + 1 + 3 + 0 + 3 + 1) / 14)


def test_groups_add_up():
    rows = evaluation().figures()
    for group in ([SEEN, "unseen"], ["Harvard", "Switchboard"], ["a", "b"]):
        assert sum(rows[name]["words"] for name in group) == 14
        assert sum(rows[name]["deletions"] for name in group) == 1
    assert [result.text for result in evaluation().groups()[SEEN]] == READ[:3]


def test_words_that_cannot_be_recognised_are_counted():
    assert evaluation().out_of_vocabulary == Counter({"dogs": 1})


def test_errors_are_told_apart():
    shown = evaluation()
    assert shown.confusions == Counter(
        {("two", "too"): 1, ("too", ""): 1, ("", "much"): 1, ("dogs", "cats"): 1}
    )
    assert aligned(shown.results[2]) == [("two",) * 2, ("cats",) * 2, ("too", ""), ("much",) * 2]
    assert [result.edits.count for result in shown.worst] == [1, 1, 1, 1]
    assert shown.worst[-1] is shown.results[2]  # the longest sentence
    assert total(result.edits for result in shown.worst).count == 4


def test_lists_name_their_trial():
    utterance = evaluation().results[4].utterance
    assert utterance.key == ("b", 1, 4)
    assert [candidate.text for candidate in utterance.candidates] == [READ[4]]
    assert utterance.candidates[0].total == -3.0


def test_one_trial_without_a_sentence_is_named_and_the_others_are_scored():
    whole = evaluation()
    results = list(whole.results)
    silent = dataclasses.replace(results[3].trial, sentence=None)
    results[3] = dataclasses.replace(results[3], trial=silent)
    shown = dataclasses.replace(whole, results=results)
    rest = dataclasses.replace(whole, results=[*whole.results[:3], *whole.results[4:]])
    assert shown.labelled and shown.without_sentence == [("b", 1, 3)]
    assert shown.figures() == rest.figures()
    assert shown.to_dict()["groups"] == rest.figures()
    assert shown.to_dict()["without_sentence"] == ["b/block 1/trial 3"]
    assert shown.confusions == rest.confusions and shown.worst == rest.worst
    assert shown.out_of_vocabulary == rest.out_of_vocabulary


def test_sentences_of_no_corpus_have_a_row_where_others_have_one():
    whole = evaluation()
    trial = dataclasses.replace(whole.results[0].trial, corpus=None)
    results = [dataclasses.replace(whole.results[0], trial=trial), *whole.results[1:]]
    rows = dataclasses.replace(whole, results=results).figures()
    assert [rows[name]["sentences"] for name in ("Harvard", "Switchboard", "unknown")] == [3, 2, 1]


def test_without_sentences_there_are_no_rates():
    shown = evaluation(labelled=False)
    assert not shown.labelled
    assert "predictions only" in shown.to_dict()["note"]
    assert "groups" not in shown.to_dict()
    with pytest.raises(ValueError, match="a/block 1/trial 0"):
        _ = shown.results[0].edits
