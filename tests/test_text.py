import csv
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modessm_jax import text
from modessm_jax.text import Edits

SHORT = st.lists(st.integers(1, 4), max_size=9)


def test_the_published_phoneme_error_rate_is_reproduced(shared_data):
    trials = json.loads((shared_data / "recorded/t12_val_phonemes.json").read_text())
    counted = [text.phoneme_edits(trial["phonemes"], trial["gru"]) for trial in trials]
    without = [
        text.phoneme_edits(trial["phonemes"], trial["gru"], silence=False) for trial in trials
    ]
    assert text.total(counted).reference_length == 24231
    assert text.percent(text.total(counted).rate) == "21.66 %"
    assert text.percent(text.total(without).rate) == "27.43 %"


def test_the_published_word_error_rate_is_reproduced(shared_data):
    trials = json.loads((shared_data / "recorded/t15_val_baseline.json").read_text())
    sentences = [text.word_edits(trial["sentence"], trial["baseline"]) for trial in trials]
    assert len(sentences) == 1426
    assert text.percent(text.total(sentences).rate) == "6.32 %"
    assert text.percent(text.mean_rate(sentences)) == "6.92 %"


def brute_force_distance(reference, hypothesis):
    table = np.zeros((len(reference) + 1, len(hypothesis) + 1), int)
    table[:, 0], table[0, :] = np.arange(len(reference) + 1), np.arange(len(hypothesis) + 1)
    for i, wanted in enumerate(reference, 1):
        for j, decoded in enumerate(hypothesis, 1):
            table[i, j] = min(
                table[i - 1, j] + 1,
                table[i, j - 1] + 1,
                table[i - 1, j - 1] + (wanted != decoded),
            )
    return table[-1, -1]


@given(SHORT, SHORT)
def test_edits_are_a_cheapest_path_of_the_right_length(reference, hypothesis):
    counted = text.edits(reference, hypothesis)
    assert counted.count == brute_force_distance(reference, hypothesis)
    assert counted.insertions - counted.deletions == len(hypothesis) - len(reference)
    assert counted.substitutions + counted.deletions <= counted.reference_length == len(reference)


def test_each_kind_of_edit_is_counted_as_itself():
    assert text.edits("abcd", "abXd") == Edits(1, 0, 0, 4)
    assert text.edits("abcd", "abcXd") == Edits(0, 1, 0, 4)
    assert text.edits("abcd", "acd") == Edits(0, 0, 1, 4)


def test_perfect_is_0_and_an_empty_hypothesis_is_1():
    ids = np.array([5, 40, 7, 40])
    assert text.phoneme_edits(ids, ids.tolist()).rate == 0
    assert text.phoneme_edits(ids, []).rate == 1
    assert text.word_edits("so it goes", "").rate == 1


def test_a_rate_without_reference_is_refused():
    with pytest.raises(ValueError, match="reference"):
        _ = text.edits([], [1]).rate
    with pytest.raises(ValueError, match="sentence"):
        text.mean_rate([])
    with pytest.raises(ValueError, match="reference"):
        text.bootstrap_interval([Edits()], seed=0)


def test_aggregate_and_mean_of_sentences_are_different_numbers():
    sentences = [Edits(1, 0, 0, 1), Edits(0, 0, 0, 3)]
    assert text.total(sentences).rate == 0.25
    assert text.mean_rate(sentences) == 0.5


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("Well, that's 2 fine!", "well that's fine"),
        ("pre- and post-war", "pre and post-war"),
        ("wait--what", "waitwhat"),
        ("rock 'n' roll", "rock'n' roll"),
        ("  A\tlot  of   space ", "alot of space"),
        ("?!", ""),
    ],
)
def test_text_is_normalised_as_the_benchmarks_do(raw, clean):
    assert text.normalize(raw) == clean


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("We\u2019re here, he said.", "we're here he said"),
        ("wait\u2014it\u2019s", "wait it's"),
        ("wait--it's", "wait it's"),
        ("yes\tno\u00a0so\u2028ye\u200bs", "yes no so yes"),
        ("well\u2011known \u2010 twenty-one", "well-known twenty-one"),
        ("caf\u00e9, na\u00efve, \ufb01ne \ufeff", "cafe naive fine"),
        ("It 's the dogs' bowl, get 'em!", "it's the dogs' bowl get 'em"),
        ("said \u2018don\u2019t go\u2019 'n' left", "said don't go n left"),
        ("yes,no and/or R&B", "yes no and or r b"),
        ("the U.S. at 5 a.m.Then on", "the us at 5 am then on"),
        ("bold360 \u043a\u043e\u0442", "bold360 \u043a\u043e\u0442"),
        (" - ' '' -- ?!", ""),
    ],
)
def test_text_is_cleaned_without_losing_words(raw, clean):
    assert text.clean(raw) == clean
    assert text.clean(clean) == clean


def test_cleaning_a_plain_sentence_gives_the_benchmarks_words(shared_data):
    labels = shared_data / "recorded" / "t15_labels.csv"
    with labels.open(encoding="utf-8", newline="") as file:
        sentences = [row["ground_truth_text"] for row in csv.DictReader(file)]
    other = [each for each in sentences if text.clean(each) != text.normalize(each)]
    assert len(sentences) == 9498 and len(other) == 2
    assert all("\u2019" in each for each in other)


def test_word_edits_ignore_case_and_punctuation():
    assert text.word_edits("Hello, you.", "hello you").count == 0


def test_the_bootstrap_covers_the_rate_and_agrees_with_the_binomial():
    wrong = np.random.default_rng(3).random(400) < 0.2
    sentences = [Edits(int(w), 0, 0, 1) for w in wrong]
    rate = text.total(sentences).rate
    low, high = text.bootstrap_interval(sentences, seed=1)
    half_width = 1.96 * np.sqrt(rate * (1 - rate) / len(sentences))
    np.testing.assert_allclose([low, high], [rate - half_width, rate + half_width], atol=0.005)
    assert (low, high) == text.bootstrap_interval(sentences, seed=1)


def test_the_bootstrap_weighs_sentences_by_length():
    sentences = [Edits(0, 0, 0, 99), Edits(1, 0, 0, 1)] * 50
    low, high = text.bootstrap_interval(sentences, seed=0)
    assert low < 0.01 < high < 0.02


def test_the_paired_bootstrap_sees_a_difference_that_two_intervals_hide():
    rng = np.random.default_rng(5)
    hard = rng.integers(0, 10, 200)
    better = [Edits(int(n), 0, 0, 10) for n in hard]
    worse = [Edits(int(n), int(rng.random() < 0.2), 0, 10) for n in hard]
    first, second = (text.bootstrap_interval(edits, seed=0) for edits in (better, worse))
    assert first[1] > second[0]
    low, high = text.bootstrap_interval(better, seed=0, against=worse)
    difference = text.total(better).rate - text.total(worse).rate
    assert low < difference < high < 0
    mirrored = text.bootstrap_interval(worse, seed=0, against=better)
    np.testing.assert_allclose(mirrored, (-high, -low))
    with pytest.raises(ValueError, match="two decodings of the same sentences"):
        text.bootstrap_interval(better, seed=0, against=worse[1:])


TRAINING = [
    "Well, I do not KNOW what you mean.",
    "yes",
    "going to",
    "the store",
    "",
]


def test_sentences_are_found_within_lines_and_in_any_dress():
    sentences = {
        "i do not know": True,
        "I do not know what you mean!": True,
        "Yes.": True,
        "know": True,  # a single word, inside
        "do not know you": False,
        "not know what you mean it": False,  # beyond the end of the line
        "going to the store": False,  # over two lines
        "no": False,  # part of a word only
        "!": False,
    }
    assert text.seen_sentences(list(sentences), TRAINING) == list(sentences.values())


def test_equal_sentences_are_seen_alike():
    assert text.seen_sentences(["yes", "no", "yes"], iter(TRAINING)) == [True, False, True]
    assert text.seen_sentences([], TRAINING) == []
    assert text.seen_sentences(["yes"], []) == [False]


def test_percent():
    assert text.percent(0.063215) == "6.32 %"
    assert text.percent(1.0) == "100.00 %"
    assert text.percent(None) == "-"
