"""Mean and deviation of each feature, and the adapter that makes them those of another session."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Float64

from modessm_jax.recalibration.adapter import Adapter


@dataclass(frozen=True)
class FeatureStatistics:
    """Sums over the bins seen."""

    bins: int
    sums: Float64[np.ndarray, "channels"]
    squares: Float64[np.ndarray, "channels"]

    @classmethod
    def empty(cls, channels: int) -> "FeatureStatistics":
        """Of no bins."""
        return cls(0, np.zeros(channels), np.zeros(channels))

    @classmethod
    def of(cls, channels: int, trials: Iterable[np.ndarray]) -> "FeatureStatistics":
        """Of some trials, [bins, channels] each."""
        found = cls.empty(channels)
        for trial in trials:
            found = found.with_trial(trial)
        return found

    def with_trial(self, features: Float32[np.ndarray, "bins channels"]) -> "FeatureStatistics":
        """With the bins of one more trial."""
        values = features.astype(np.float64)
        return FeatureStatistics(
            self.bins + len(values),
            self.sums + values.sum(axis=0),
            self.squares + np.square(values).sum(axis=0),
        )

    @property
    def mean(self) -> Float64[np.ndarray, "channels"]:
        """Of each feature."""
        return self.sums / max(self.bins, 1)

    @property
    def deviation(self) -> Float64[np.ndarray, "channels"]:
        """Of each feature; 0 where it never changes."""
        return np.sqrt(np.maximum(self.squares / max(self.bins, 1) - self.mean**2, 0.0))


def matched(adapter: Adapter, seen: FeatureStatistics, like: FeatureStatistics) -> Adapter:
    """The affine adapter behind a map that gives the features seen the statistics of others.

    With `y = x (I + W) + b`, and each feature of x replaced by `(x - mean) r + mean of like`, where
    r is the ratio of deviations. A feature that never changes in either keeps its deviation.
    """
    moving = (seen.deviation > 1e-6) & (like.deviation > 1e-6)
    ratio = np.where(moving, like.deviation / np.where(moving, seen.deviation, 1.0), 1.0)
    shift = like.mean - ratio * seen.mean
    map_ = np.asarray(adapter["weight"], np.float64) + np.eye(len(ratio))
    return {
        "weight": (ratio[:, None] * map_ - np.eye(len(ratio))).astype(np.float32),
        "offset": (shift @ map_ + np.asarray(adapter["offset"], np.float64)).astype(np.float32),
    }
