import numpy as np
import pytest
from scipy.ndimage import uniform_filter1d

from modessm_jax.phonemes import CLASSES, SILENCE
from modessm_jax.simulate.calendar import Sizes, drawn
from modessm_jax.simulate.trials import simulate

SIZES = Sizes(sessions=1, train=60, val=20, test=0, min_words=3, max_words=5)
PLAN = drawn(SIZES, electrodes=256, seed=0)


@pytest.fixture(scope="module")
def trials():
    return [trial for block in simulate(PLAN) for trial in block]


def centred(trials, split):
    """Features smoothed over 5 bins at the middle of every phoneme, and the phoneme ids."""
    chosen = [trial for trial in trials if trial.split == split]
    smooth = [uniform_filter1d(t.features, 5, axis=0)[t.centres] for t in chosen]
    return np.concatenate(smooth), np.concatenate([t.phonemes for t in chosen])


def test_phonemes_can_be_told_apart_within_a_session_but_not_trivially(trials):
    features, ids = centred(trials, "train")
    counts = np.bincount(ids, minlength=CLASSES)
    means = np.eye(CLASSES)[ids].T @ features / np.maximum(counts, 1)[:, None]
    residual = features - means[ids]
    spread = residual.T @ residual / len(residual)
    spread = 0.5 * spread + 0.5 * np.trace(spread) / len(spread) * np.eye(len(spread))
    weights = np.linalg.solve(spread, means.T)
    bias = -0.5 * np.sum(means.T * weights, axis=0) + np.log(np.maximum(counts, 1e-9))
    unseen, wanted = centred(trials, "val")
    accuracy = np.mean((unseen @ weights + bias).argmax(axis=1) == wanted)
    assert 0.75 < accuracy < 0.95


def test_people_speak_at_the_rate_of_their_mode(trials):
    for mode, rate in (("vocalized", 30), ("silent", 50)):
        said = [trial for trial in trials if trial.mode == mode]
        words = sum(np.count_nonzero(trial.phonemes == SILENCE) for trial in said)
        minutes = sum(trial.durations[1:].sum() for trial in said) / 3000
        assert words / minutes == pytest.approx(rate, rel=0.1)


def test_durations_add_up_and_centres_lie_inside(trials):
    for trial in trials:
        assert trial.durations.sum() == len(trial.features)
        ends = np.cumsum(trial.durations)
        assert np.all((ends[:-1] <= trial.centres) & (trial.centres < ends[1:]))


def test_the_seed_decides_everything_and_each_trial_is_its_own():
    sizes = Sizes(sessions=2, train=3, val=1, test=1, min_words=3, max_words=4)
    small = drawn(sizes, electrodes=4, seed=5)
    once, again = ([t for block in simulate(small) for t in block] for _ in range(2))
    for one, two in zip(once, again, strict=True):
        assert one.features.tobytes() == two.features.tobytes() and one.sentence == two.sentence
    assert len({t.features.tobytes() for t in once}) == len(once)
