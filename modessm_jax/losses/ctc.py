"""Connectionist temporal classification and label smoothing, per example, in nats."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jaxtyping import Array, Bool

from modessm_jax.phonemes import BLANK
from modessm_jax.sequence import Sequence


@struct.dataclass
class Cost:
    """What an objective charges each example, before any normalisation.

    An example that is not valid has 0 nats and a gradient of exactly zero.
    """

    nats: Any  # float32 [batch]
    valid: Any  # bool [batch]


def feasible(logits: Sequence, labels: Sequence) -> Bool[Array, "batch"]:
    """Whether each example has frames enough to emit its labels.

    CTC needs one frame a label and a blank between two equal neighbours. An example without labels
    is feasible once it has a frame; one without frames (a filler row) never is.
    """
    repeats = (labels.values[:, 1:] == labels.values[:, :-1]) & labels.mask[:, 1:]
    needed = labels.lengths + repeats.sum(axis=1, dtype=jnp.int32)
    return logits.lengths >= jnp.maximum(needed, 1)


def ctc_cost(logits: Sequence, labels: Sequence) -> Cost:
    """Minus the log probability of the labels, summed over all alignments.

    Graves et al. 2006, "Connectionist temporal classification"; class 0 is the blank.

    Args:
      logits: `[batch, frames, classes]` of any float type, not normalised; computed in float32.
      labels: int `[batch, labels]`; real labels come first and none of them is the blank.

    Returns:
      One cost per example; an example that cannot be aligned is not valid, see `feasible`.
    """
    valid = feasible(logits, labels)
    # Selecting before the loss keeps the (finite but meaningless) gradient of an impossible
    # alignment, and anything in the padding, from ever reaching the logits.
    counted = logits.expanded_mask() & valid[:, None, None]
    scores = jnp.where(counted, logits.values.astype(jnp.float32), 0.0)
    ids = jnp.where(labels.mask, labels.values, BLANK).astype(jnp.int32)
    # One column of padding: optax does not take label arrays of width zero.
    ids = jnp.pad(ids, ((0, 0), (0, 1)), constant_values=BLANK)
    label_padding = jnp.pad(~labels.mask, ((0, 0), (0, 1)), constant_values=True)
    nats = optax.ctc_loss(
        scores,
        (~logits.mask).astype(jnp.float32),
        ids,
        label_padding.astype(jnp.float32),
        blank_id=BLANK,
    )
    return Cost(nats=jnp.where(valid, nats, 0.0), valid=valid)


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
