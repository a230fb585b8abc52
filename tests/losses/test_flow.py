"""The flow's regression against its definition, and its indifference to padding."""

import jax
import jax.numpy as jnp
import numpy as np

from modessm_jax.losses.flow import flow_cost
from modessm_jax.sequence import Sequence


def pair(fill: float) -> tuple[Sequence, Sequence]:
    values = np.random.default_rng(0).normal(size=(2, 3, 5, 4)).astype(np.float32)
    both = []
    for part, lengths in zip(values, ([5, 3, 0], [4, 3, 0]), strict=True):
        x = Sequence.from_lengths(jnp.asarray(part), jnp.asarray(lengths))
        both.append(x.with_values(jnp.where(x.expanded_mask(), x.values, fill)))
    return both[0], both[1]


def test_it_is_half_the_squared_error_of_frames_real_in_both():
    predicted, target = pair(0.0)
    cost = flow_cost(predicted, target)
    error = np.asarray(predicted.values, np.float64) - np.asarray(target.values)
    for row, frames in enumerate([4, 3, 0]):
        expected = 0.5 * (error[row, :frames] ** 2).mean(axis=-1).sum()
        np.testing.assert_allclose(cost.nats[row], expected, rtol=1e-5)
    assert cost.valid.tolist() == [True, True, False]


def test_it_is_the_nats_of_a_unit_gaussian_above_those_of_its_mean():
    predicted, target = pair(0.0)
    log_density = jax.scipy.stats.norm.logpdf(target.values, predicted.values)
    best = jax.scipy.stats.norm.logpdf(0.0)
    lost = (best - log_density).mean(axis=-1)
    both = predicted.mask & target.mask
    np.testing.assert_allclose(
        flow_cost(predicted, target).nats, jnp.where(both, lost, 0).sum(axis=1), rtol=1e-4
    )


def test_padding_changes_neither_values_nor_gradients():
    def pull(predicted, target):
        def summed(values):
            return flow_cost(predicted.with_values(values), target).nats.sum()

        return jax.value_and_grad(summed)(predicted.values)

    clean, dirty = pull(*pair(0.0)), pull(*pair(np.nan))
    jax.tree.map(np.testing.assert_array_equal, clean, dirty)
    both = np.asarray(pair(0.0)[0].mask & pair(0.0)[1].mask)
    assert (np.asarray(dirty[1])[~both] == 0).all()
    assert (np.asarray(dirty[1])[both] != 0).all()


def test_half_precision_is_summed_in_float32():
    predicted, target = pair(0.0)
    half = predicted.with_values(predicted.values.astype(jnp.bfloat16))
    cost = flow_cost(half, target)
    assert cost.nats.dtype == jnp.float32
    np.testing.assert_allclose(cost.nats, flow_cost(predicted, target).nats, rtol=0.02)
