import numpy as np
import pytest

from modessm_jax.simulate import electrodes, recording
from modessm_jax.simulate.articulation import ARTICULATORS
from modessm_jax.simulate.calendar import SILENT, VOCALIZED

IMPLANT = electrodes.implant(0, 256)
STILL = np.zeros((4000, electrodes.SHARED_SOURCES), np.float32)


def speak(mode, level=1.0):
    articulators = np.full((len(STILL), len(ARTICULATORS)), level, np.float32)
    return recording.record(np.random.default_rng(0), articulators, STILL, IMPLANT, mode)


def spikes(features):
    live = ~(IMPLANT.dead | IMPLANT.noisy)
    return np.expm1(features[:, :256])[:, live].mean(axis=0), live


def test_rates_follow_tuning_and_less_so_in_silence():
    rest, live = spikes(speak(VOCALIZED, 0.0))
    predicted = IMPLANT.tuning.sum(axis=1)[live]
    loud = np.log(spikes(speak(VOCALIZED))[0] / rest)
    quiet = np.log(spikes(speak(SILENT))[0] / rest)
    np.testing.assert_allclose(loud, predicted, atol=0.25)
    slope = np.polyfit(loud, quiet, 1)[0]
    assert slope == pytest.approx(SILENT.modulation, abs=0.05)


def test_crossings_are_counts_and_power_goes_with_them():
    features = speak(VOCALIZED, 0.0)
    counts = np.expm1(features[:, :256])
    np.testing.assert_allclose(counts, np.rint(counts), atol=1e-4)
    together = [
        np.corrcoef(features[:, e], features[:, 256 + e])[0, 1]
        for e in np.flatnonzero(~IMPLANT.dead)
    ]
    assert 0.3 < np.median(together) < 0.7


def test_dead_electrodes_are_zero_and_noisy_ones_fire_too_much():
    features = speak(VOCALIZED)
    assert np.all(features[:, np.tile(IMPLANT.dead, 2)] == 0)
    assert np.expm1(features[:, :256][:, IMPLANT.noisy]).mean() == pytest.approx(4, rel=0.05)


def test_a_block_is_normalised_as_a_whole_and_dead_channels_become_zero():
    rng = np.random.default_rng(0)
    trials = [rng.normal(3, 2, (bins, 5)).astype(np.float32) for bins in (30, 70)]
    for trial in trials:
        trial[:, 4] = 1.5
    normal = np.concatenate(recording.normalize_block(trials))
    np.testing.assert_allclose(normal.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(normal.std(axis=0), [1, 1, 1, 1, 0], atol=1e-5)
    first = recording.normalize_block(trials)[0]
    assert np.abs(first.mean(axis=0)).max() > 0.01


def test_slow_drift_moves_from_trial_to_trial():
    levels = recording.slow_drift(np.random.default_rng(0), 400)
    assert levels.shape == (401, electrodes.SHARED_SOURCES)
    steps = np.diff(levels, axis=0).std()
    assert 0.3 * levels.std() < steps < levels.std()
