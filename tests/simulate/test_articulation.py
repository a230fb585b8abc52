import numpy as np
import pytest

from modessm_jax.phonemes import SILENCE, phoneme_id
from modessm_jax.simulate import articulation

TARGETS = articulation.articulator_targets()
IDS = np.array([SILENCE, phoneme_id("M"), phoneme_id("AY"), SILENCE], np.int32)


def test_every_pair_of_phonemes_is_articulated_apart():
    flat = TARGETS[1:].reshape(SILENCE, -1)
    distance = np.linalg.norm(flat[:, None] - flat[None], axis=-1)
    assert distance[~np.eye(SILENCE, dtype=bool)].min() > 0.5
    np.testing.assert_allclose(TARGETS[1:].mean(axis=(0, 1)), 0, atol=1e-5)
    np.testing.assert_allclose(TARGETS[1:].std(axis=(0, 1)), 1, atol=1e-5)


def test_durations_keep_the_rate_and_jitter():
    rng = np.random.default_rng(0)
    ids = rng.integers(1, SILENCE + 1, 5000).astype(np.int32)
    durations = articulation.draw_durations(rng, ids, bins_per_phoneme=15.0)
    assert durations.mean() == pytest.approx(15, rel=0.06)
    assert durations.std() > 3 and durations.min() >= 2


def test_long_phonemes_reach_their_targets_and_short_ones_blend():
    durations = np.array([60, 60, 60, 60])
    path = articulation.trajectory(IDS, durations, TARGETS)
    assert path.shape == (240, len(articulation.ARTICULATORS))
    np.testing.assert_allclose(path[90], TARGETS[IDS[1], 0], atol=0.01)
    short = articulation.trajectory(IDS, np.array([60, 3, 3, 60]), TARGETS)
    reached = np.linalg.norm(short[61] - TARGETS[IDS[1], 0])
    assert reached > 0.3 * np.linalg.norm(TARGETS[IDS[1], 0] - TARGETS[SILENCE, 0])


def test_a_diphthong_glides():
    path = articulation.trajectory(IDS, np.array([40, 40, 40, 40]), TARGETS)
    jaw = articulation.ARTICULATORS.index("jaw open")
    assert path[90, jaw] > path[100, jaw] > path[110, jaw]


def test_the_mouth_moves_smoothly_and_alike_in_both_directions_of_time():
    durations = np.array([30, 30, 30, 30])
    monophthongs = IDS.copy()
    monophthongs[2] = phoneme_id("IY")
    path = articulation.trajectory(monophthongs, durations, TARGETS)
    backwards = articulation.trajectory(monophthongs[::-1].copy(), durations, TARGETS)
    np.testing.assert_allclose(path, backwards[::-1], atol=1e-3)
    steps = np.abs(np.diff(path, axis=0)).max()
    assert steps < 0.3 * np.abs(np.diff(TARGETS[monophthongs, 0], axis=0)).max()
