"""Consistency against the divergence worked out in float64."""

import jax
import jax.numpy as jnp
import numpy as np

from modessm_jax.losses.consistency import consistency_cost
from modessm_jax.sequence import Sequence

CLASSES = 4


def views() -> tuple[Sequence, Sequence]:
    values = np.random.default_rng(0).normal(size=(2, 3, 5, CLASSES)).astype(np.float32)
    first = Sequence.from_lengths(jnp.asarray(values[0]), jnp.asarray([5, 3, 0]))
    second = Sequence.from_lengths(jnp.asarray(values[1]), jnp.asarray([4, 3, 0]))
    return first, second


def soft(values: np.ndarray) -> np.ndarray:
    p = np.exp(np.asarray(values, np.float64))
    return p / p.sum(axis=-1, keepdims=True)


def test_it_is_the_divergence_over_frames_real_in_both():
    first, second = views()
    cost = consistency_cost(first, second)
    for row, frames in enumerate([4, 3, 0]):
        p = soft(np.asarray(first.values)[row, :frames])
        q = soft(np.asarray(second.values)[row, :frames])
        np.testing.assert_allclose(cost.nats[row], (q * np.log(q / p)).sum(), rtol=1e-5)
    assert cost.valid.tolist() == [True, True, False]


def test_a_view_agrees_with_itself():
    first, _ = views()
    np.testing.assert_allclose(consistency_cost(first, first).nats, 0, atol=1e-6)


def test_the_gradient_pulls_one_view_to_the_other_and_ignores_padding():
    first, second = views()
    dirty = first.with_values(jnp.where(first.expanded_mask(), first.values, jnp.nan))

    def summed(values, target):
        return consistency_cost(first.with_values(values), target).nats.sum()

    def of_target(values):
        return summed(first.values, second.with_values(values))

    gradient = np.asarray(jax.grad(summed)(dirty.values, second))
    expected = soft(np.asarray(first.values)) - soft(np.asarray(second.values))
    both = np.asarray(first.mask & second.mask)
    np.testing.assert_allclose(gradient[both], expected[both], atol=1e-6)
    assert (gradient[~both] == 0).all()
    assert (jax.grad(of_target)(second.values) == 0).all()
