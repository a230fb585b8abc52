"""The report shows the figures, and the worst sentences side by side."""

import dataclasses

import pytest

from modessm_jax.words.report import format_words, write_word_report
from modessm_jax.words.results import GREEDY
from tests.evaluation.test_report import size_of
from tests.words.test_results import evaluation


def test_the_table_prints_the_figures():
    text = format_words(evaluation())
    rows = {line.split("  ")[0]: line for line in text.splitlines()}
    assert "28.57 %" in rows["all"] and "21.43 %" in rows["all"]
    assert "71.43 %" in rows[GREEDY]
    assert {"seen in training", "unseen", "Harvard", "a", "b"} < set(rows)
    assert "a note" in text
    assert "out of vocabulary: 1 of 14 words, 1 different: dogs (1)" in text


def test_wrong_words_stand_out():
    lines = format_words(evaluation()).splitlines()
    place = lines.index("a/block 1/trial 2: 1 wrong")
    assert lines[place + 1].split() == ["reference", "two", "cats", "TOO", "much"]
    assert lines[place + 2].split() == ["decoded", "two", "cats", "***", "much"]
    assert lines[place + 1].index("much") == lines[place + 2].index("much")


def test_the_table_without_sentences_says_so():
    text = format_words(evaluation(labelled=False))
    assert "predictions only" in text and "%" not in text


def test_trials_without_a_sentence_are_named():
    whole = evaluation()
    silent = dataclasses.replace(whole.results[3].trial, sentence=None)
    results = [*whole.results[:3], dataclasses.replace(whole.results[3], trial=silent)]
    text = format_words(dataclasses.replace(whole, results=results))
    assert "1 of 4 trials have no sentence and are not scored: b/block 1/trial 3" in text
    assert "out of vocabulary" not in text and "%" in text


def test_the_picture_is_drawn(tmp_path):
    picture = tmp_path / "val.png"
    write_word_report(picture, evaluation())
    assert size_of(picture)[0] == 1600
    crowded = picture.stat().st_size
    shown = evaluation()
    right = dataclasses.replace(shown, results=[shown.results[1]])
    write_word_report(picture, right)
    assert size_of(picture)[0] == 1600
    assert picture.stat().st_size < crowded  # no sentence to show
    with pytest.raises(ValueError, match="predictions only"):
        write_word_report(picture, evaluation(labelled=False))
