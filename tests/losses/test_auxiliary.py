"""Each auxiliary cost against its definition in float64, and diphone labels against all pairs."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np

from modessm_jax.losses.auxiliary import (
    consistency_cost,
    diphone_labels,
    flow_cost,
    label_smoothing_cost,
)
from modessm_jax.phonemes import CLASSES, SILENCE
from modessm_jax.sequence import Sequence
from tests.losses.enumeration import padded

FEW = 4


def test_label_smoothing_is_the_divergence_from_uniform_over_real_frames():
    values = np.random.default_rng(8).normal(size=(3, 5, FEW)).astype(np.float32)
    logits = Sequence.from_lengths(jnp.asarray(values), jnp.asarray([5, 2, 0]))
    dirty = logits.with_values(jnp.where(logits.expanded_mask(), logits.values, jnp.nan))
    cost = label_smoothing_cost(dirty)
    for row, length in enumerate([5, 2, 0]):
        x = np.asarray(logits.values)[row, :length].astype(np.float64)
        p = np.exp(x) / np.exp(x).sum(-1, keepdims=True)
        expected = (np.log((1 / FEW) / p) / FEW).sum()
        np.testing.assert_allclose(cost.nats[row], expected, rtol=1e-5, atol=1e-12)
    assert cost.valid.tolist() == [True, True, False]
    gradient = jax.grad(lambda v: label_smoothing_cost(dirty.with_values(v)).nats.sum())(
        dirty.values
    )
    assert jnp.isfinite(gradient).all()
    assert (gradient[~np.asarray(logits.mask)] == 0).all()


def views() -> tuple[Sequence, Sequence]:
    values = np.random.default_rng(0).normal(size=(2, 3, 5, FEW)).astype(np.float32)
    first = Sequence.from_lengths(jnp.asarray(values[0]), jnp.asarray([5, 3, 0]))
    second = Sequence.from_lengths(jnp.asarray(values[1]), jnp.asarray([4, 3, 0]))
    return first, second


def soft(values: np.ndarray) -> np.ndarray:
    p = np.exp(np.asarray(values, np.float64))
    return p / p.sum(axis=-1, keepdims=True)


def test_consistency_is_the_divergence_over_frames_real_in_both():
    first, second = views()
    cost = consistency_cost(first, second)
    for row, frames in enumerate([4, 3, 0]):
        p = soft(np.asarray(first.values)[row, :frames])
        q = soft(np.asarray(second.values)[row, :frames])
        np.testing.assert_allclose(cost.nats[row], (q * np.log(q / p)).sum(), rtol=1e-5)
    assert cost.valid.tolist() == [True, True, False]


def test_a_view_is_consistent_with_itself():
    first, _ = views()
    np.testing.assert_allclose(consistency_cost(first, first).nats, 0, atol=1e-6)


def test_the_gradient_of_consistency_is_that_of_one_view_alone_and_ignores_padding():
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


PAIRS = list(itertools.product(range(1, CLASSES), repeat=2))


def test_diphone_labels_are_the_pairs_of_neighbours():
    targets = [[5, 5, 40, 1], [40], [], [1, 2, 3]]
    found = diphone_labels(padded(targets, 5))
    for row, target in enumerate(targets):
        expected = [1 + PAIRS.index(pair) for pair in itertools.pairwise([SILENCE, *target])]
        assert found.values[row, : len(target)].tolist() == expected
        assert (found.values[row, len(target) :] == 0).all()
    assert found.lengths.tolist() == [4, 1, 0, 3]


def velocities(fill: float) -> tuple[Sequence, Sequence]:
    values = np.random.default_rng(0).normal(size=(2, 3, 5, 4)).astype(np.float32)
    both = []
    for part, lengths in zip(values, ([5, 3, 0], [4, 3, 0]), strict=True):
        x = Sequence.from_lengths(jnp.asarray(part), jnp.asarray(lengths))
        both.append(x.with_values(jnp.where(x.expanded_mask(), x.values, fill)))
    return both[0], both[1]


def test_flow_is_half_the_squared_error_of_frames_real_in_both():
    predicted, target = velocities(0.0)
    cost = flow_cost(predicted, target)
    error = np.asarray(predicted.values, np.float64) - np.asarray(target.values)
    for row, frames in enumerate([4, 3, 0]):
        expected = 0.5 * (error[row, :frames] ** 2).mean(axis=-1).sum()
        np.testing.assert_allclose(cost.nats[row], expected, rtol=1e-5)
    assert cost.valid.tolist() == [True, True, False]


def test_flow_is_the_nats_of_a_unit_gaussian_above_those_of_its_mean():
    predicted, target = velocities(0.0)
    log_density = jax.scipy.stats.norm.logpdf(target.values, predicted.values)
    best = jax.scipy.stats.norm.logpdf(0.0)
    lost = (best - log_density).mean(axis=-1)
    both = predicted.mask & target.mask
    np.testing.assert_allclose(
        flow_cost(predicted, target).nats, jnp.where(both, lost, 0).sum(axis=1), rtol=1e-4
    )


def test_padding_changes_neither_values_nor_gradients_of_flow():
    def pull(predicted, target):
        def summed(values):
            return flow_cost(predicted.with_values(values), target).nats.sum()

        return jax.value_and_grad(summed)(predicted.values)

    clean, dirty = pull(*velocities(0.0)), pull(*velocities(np.nan))
    jax.tree.map(np.testing.assert_array_equal, clean, dirty)
    both = np.asarray(velocities(0.0)[0].mask & velocities(0.0)[1].mask)
    assert (np.asarray(dirty[1])[~both] == 0).all()
    assert (np.asarray(dirty[1])[both] != 0).all()


def test_flow_of_half_precision_is_summed_in_float32():
    predicted, target = velocities(0.0)
    half = predicted.with_values(predicted.values.astype(jnp.bfloat16))
    cost = flow_cost(half, target)
    assert cost.nats.dtype == jnp.float32
    np.testing.assert_allclose(cost.nats, flow_cost(predicted, target).nats, rtol=0.02)
