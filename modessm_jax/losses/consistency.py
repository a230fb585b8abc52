"""Consistency of what is said of two views of the same trial, per example, in nats."""

import jax
import jax.numpy as jnp

from modessm_jax.losses.cost import Cost
from modessm_jax.sequence import Sequence


def consistency_cost(logits: Sequence, target: Sequence) -> Cost:
    """Divergence of a prediction from that of another view, summed over real frames.

    CR-CTC (Yao et al. 2025, "CR-CTC: consistency regularization on CTC for improved speech
    recognition"): two views of each trial, augmented differently, teach each other. This is
    `KL(p_target || p)` of each frame; no gradient passes through the target. Summed, so that the
    normaliser of the other costs turns it into a mean per frame (or per label).

    Args:
      logits: `[batch, frames, classes]` of any float type, not normalised.
      target: those of the other view, frame by frame of the same time; only frames real in both
        count.

    Returns:
      One cost per example; an example without frames is not valid.
    """
    mask = logits.mask & target.mask
    own, others = (
        jax.nn.log_softmax(jnp.where(mask[..., None], x.values.astype(jnp.float32), 0.0), axis=-1)
        for x in (logits, target)
    )
    others = jax.lax.stop_gradient(others)
    divergence = jnp.sum(jnp.exp(others) * (others - own), axis=-1)
    return Cost(nats=jnp.where(mask, divergence, 0.0).sum(axis=1), valid=mask.any(axis=1))
