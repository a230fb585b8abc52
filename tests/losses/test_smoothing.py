"""Label smoothing against the divergence worked out in float64."""

import jax
import jax.numpy as jnp
import numpy as np

from modessm_jax.losses.smoothing import label_smoothing_cost
from modessm_jax.sequence import Sequence

CLASSES = 4


def test_label_smoothing_is_the_divergence_from_uniform_over_real_frames():
    values = np.random.default_rng(8).normal(size=(3, 5, CLASSES)).astype(np.float32)
    logits = Sequence.from_lengths(jnp.asarray(values), jnp.asarray([5, 2, 0]))
    dirty = logits.with_values(jnp.where(logits.expanded_mask(), logits.values, jnp.nan))
    cost = label_smoothing_cost(dirty)
    for row, length in enumerate([5, 2, 0]):
        x = np.asarray(logits.values)[row, :length].astype(np.float64)
        p = np.exp(x) / np.exp(x).sum(-1, keepdims=True)
        expected = (np.log((1 / CLASSES) / p) / CLASSES).sum()
        np.testing.assert_allclose(cost.nats[row], expected, rtol=1e-5, atol=1e-12)
    assert cost.valid.tolist() == [True, True, False]
    gradient = jax.grad(lambda v: label_smoothing_cost(dirty.with_values(v)).nats.sum())(
        dirty.values
    )
    assert jnp.isfinite(gradient).all()
    assert (gradient[~np.asarray(logits.mask)] == 0).all()
