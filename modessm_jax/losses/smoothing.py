"""Label smoothing, per example, in nats."""

import jax
import jax.numpy as jnp

from modessm_jax.losses.cost import Cost
from modessm_jax.sequence import Sequence


def label_smoothing_cost(logits: Sequence) -> Cost:
    """Divergence of the uniform distribution from the prediction, summed over real frames.

    `KL(uniform || p) = -ln V - mean_k ln p_k` in each frame. Summed, so that the normaliser of the
    other costs turns it into a mean per frame (or per label) of the same example.
    """
    scores = jnp.where(logits.expanded_mask(), logits.values.astype(jnp.float32), 0.0)
    log_probabilities = jax.nn.log_softmax(scores, axis=-1)
    classes = scores.shape[-1]
    divergence = -jnp.log(float(classes)) - log_probabilities.mean(axis=-1)
    nats = jnp.where(logits.mask, divergence, 0.0).sum(axis=1)
    return Cost(nats=nats, valid=logits.lengths > 0)
