"""Draws of sixteen bits have the distribution they are named for, whatever their shape."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from modessm_jax.augmentation.fast_random import event, normal


@pytest.mark.parametrize("shape", [(30_001,), (100, 3, 101), (3, 4001, 1)])
def test_normal_draws_are_normal_and_all_different_words(shape):
    drawn = np.asarray(normal(jax.random.key(0), shape, jnp.dtype("float32")))
    assert drawn.shape == shape
    flat = drawn.ravel()
    assert stats.kstest(flat, "norm").pvalue > 1e-3
    assert abs(np.corrcoef(flat[1:], flat[:-1])[0, 1]) < 5 / np.sqrt(flat.size)


@pytest.mark.parametrize("probability", [0.001, 0.3, 0.9])
def test_events_have_their_probability(probability):
    drawn = np.asarray(event(jax.random.key(1), (300, 101), probability))
    assert drawn.shape == (300, 101)
    assert stats.binomtest(int(drawn.sum()), drawn.size, probability).pvalue > 1e-3
