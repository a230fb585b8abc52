"""Recorded bins become a model's features."""

import numpy as np
import pytest

from modessm_jax.streaming.features import Features


def test_channels_are_chosen_and_what_is_not_finite_is_the_mean() -> None:
    features = Features({"data": {"channels": "0,2-3"}}, 3)
    recorded = np.arange(8, dtype=np.float64).reshape(2, 4)
    recorded[1, 2] = np.inf
    state, found = features.normalize(features.start(), features.take(recorded, "bins"), "bins")
    assert state is None and found.dtype == np.float32
    np.testing.assert_array_equal(found, [[0, 2, 3], [4, 0, 7]])
    with pytest.raises(ValueError, match=r"bins: has 3 channels, .* names 3"):
        features.take(recorded[:, :3], "bins")


@pytest.mark.parametrize(
    ("bins", "least", "message"),
    [
        (np.zeros(3, np.float32), 0, r"bins: float32 of shape \(3,\), .*; give float32"),
        (np.zeros((2, 3), np.int32), 0, "bins: int32"),
        (np.zeros((0, 3), np.float32), 1, "give one bin or more, several trials as a list"),
        (np.zeros((2, 5), np.float32), 0, "bins: 5 channels, but the model was trained on 3"),
    ],
)
def test_what_does_not_fit_is_named(bins: np.ndarray, least: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Features({"data": {}}, 3).take(bins, "bins", least)
