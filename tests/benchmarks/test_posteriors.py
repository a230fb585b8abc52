"""Synthetic posteriors: they mean what they say, and err as often as asked."""

import numpy as np
import pytest

from benchmarks.posteriors import (
    Confusions,
    calibrate,
    count_confusions,
    frames_of,
    greedy,
    log_posteriors,
    phoneme_error_rate,
)
from modessm_jax.phonemes import BLANK, CLASSES, SILENCE


@pytest.fixture(scope="module")
def sentences() -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [random.integers(1, CLASSES, random.integers(5, 30)).astype(np.int32) for _ in range(25)]


@pytest.fixture(scope="module")
def confusions(sentences: list[np.ndarray]) -> Confusions:
    """Of a decoder that takes every tenth phoneme for the next one."""
    pairs = []
    for sentence in sentences:
        heard = sentence.copy()
        heard[::10] = heard[::10] % SILENCE + 1
        pairs.append((sentence.tolist(), heard.tolist()))
    return count_confusions(pairs)


def test_errors_are_counted_by_kind():
    seen = count_confusions([([3, 4, 5], [3, 6, 5]), ([7, 8], [7]), ([9], [9, 10])])
    assert seen.rates[4, 6] > 0.9 and seen.rates[8, BLANK] > 0.9
    assert seen.rates[BLANK, 10] > seen.rates[BLANK, 11]
    assert (np.diag(seen.rates) == 0).all()
    assert seen.prior.sum() == pytest.approx(1)


def test_frames_collapse_to_the_phonemes(sentences: list[np.ndarray]):
    for seed, sentence in enumerate([*sentences, np.full(9, 4, np.int32)]):
        said = frames_of(sentence, np.random.default_rng(seed))
        assert greedy(np.eye(CLASSES)[said]) == sentence.tolist()


def test_every_frame_is_a_distribution_and_a_seed_fixes_it(
    sentences: list[np.ndarray], confusions: Confusions
):
    frames = log_posteriors(sentences[0], confusions, 1.0, 5)
    np.testing.assert_allclose(np.exp(frames).sum(axis=1), 1, atol=1e-5)
    np.testing.assert_array_equal(frames, log_posteriors(sentences[0], confusions, 1.0, 5))
    assert not np.array_equal(frames, log_posteriors(sentences[0], confusions, 1.0, 6))


def test_a_probability_is_how_often_it_comes_true(
    sentences: list[np.ndarray], confusions: Confusions
):
    probabilities, truths = [], []
    for seed in range(4):
        for number, sentence in enumerate(sentences):
            key = 100 * seed + number
            probabilities.append(np.exp(log_posteriors(sentence, confusions, 3.0, key)))
            truths.append(frames_of(sentence, np.random.default_rng(key)))
    best = np.concatenate(probabilities).argmax(axis=1)
    given = np.concatenate(probabilities).max(axis=1)
    right = best == np.concatenate(truths)
    unsure = given < 0.9
    assert unsure.sum() > 100
    assert right[unsure].mean() == pytest.approx(given[unsure].mean(), abs=0.06)
    assert right[~unsure].mean() == pytest.approx(given[~unsure].mean(), abs=0.02)


def test_calibration_finds_the_error_rate_asked_for(
    sentences: list[np.ndarray], confusions: Confusions
):
    scale = calibrate(sentences, confusions, 0.10)
    assert phoneme_error_rate(sentences, confusions, scale) == pytest.approx(0.10, abs=0.015)
    with pytest.raises(ValueError, match="no scale"):
        calibrate(sentences, confusions, 2.0)
