"""Features of another day, shifted and scaled, are decoded as they would have been before."""

import numpy as np

from modessm_jax.recalibration.statistics import FeatureStatistics, matched

CHANNELS = 5


def through(adapter: dict[str, np.ndarray], features: np.ndarray) -> np.ndarray:
    """As `models.inputs.SessionAdaptation` computes it."""
    return features + features @ adapter["weight"] + adapter["offset"]


def test_a_shift_and_a_scale_of_features_are_undone():
    rng = np.random.default_rng(0)
    before = rng.normal(size=(400, CHANNELS)).astype(np.float32)
    before[:, 2] = 0.0  # a dead channel, which has no deviation to match
    gain, shift = rng.uniform(0.5, 2, CHANNELS), rng.normal(size=CHANNELS)
    shift[2] = 0.0
    after = (before * gain + shift).astype(np.float32)
    adapter = {
        "weight": rng.normal(size=(CHANNELS, CHANNELS)).astype(np.float32),
        "offset": rng.normal(size=CHANNELS).astype(np.float32),
    }
    seen = FeatureStatistics.of(CHANNELS, np.split(after, 4))
    found = matched(adapter, seen, FeatureStatistics.of(CHANNELS, [before]))
    np.testing.assert_allclose(through(found, after), through(adapter, before), atol=2e-5)
    np.testing.assert_allclose(seen.mean, after.mean(axis=0, dtype=np.float64), atol=1e-9)
    np.testing.assert_allclose(seen.deviation, after.std(axis=0, dtype=np.float64), atol=1e-6)
