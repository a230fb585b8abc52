"""Smoothing is the Gaussian it says it is."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter1d

from modessm_jax.models.convolution import Convolution, GaussianSmoothing
from modessm_jax.sequence import Sequence


def smooth(values: np.ndarray, causal: bool) -> np.ndarray:
    block = GaussianSmoothing(values.shape[1], 2.0, causal=causal, dtype=jnp.float32)
    x = Sequence(jnp.asarray(values[None], jnp.float32), jnp.ones((1, len(values)), bool))
    return np.asarray(block(x).values[0])


def test_symmetric_smoothing_equals_scipy() -> None:
    values = np.random.default_rng(0).normal(size=(40, 3))
    want = gaussian_filter1d(values, 2.0, axis=0, mode="constant", radius=6)
    np.testing.assert_allclose(smooth(values, causal=False), want, atol=1e-5)


def test_causal_smoothing_sees_only_the_past_and_keeps_the_mean() -> None:
    impulse = np.zeros((20, 1))
    impulse[8] = 1.0
    response = smooth(impulse, causal=True)[:, 0]
    assert (response[:8] == 0).all() and response[8] == response.max()
    assert response.sum() == pytest.approx(1.0, abs=1e-5)


def test_a_kernel_must_cover_its_stride() -> None:
    with pytest.raises(ValueError, match="skips frames"):
        Convolution(4, kernel=2, stride=3, causal=True, dtype=jnp.float32)
