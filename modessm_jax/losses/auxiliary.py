"""Auxiliary losses beside CTC and RNN-T: label smoothing, consistency, diphones, flow matching.

Each cost is per example, in nats, summed over real frames: the normalisation of `losses.cost` then
makes it a mean per frame (or per label) of the same example.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from modessm_jax.losses.cost import Cost
from modessm_jax.phonemes import SILENCE, diphone_id
from modessm_jax.sequence import Sequence


def label_smoothing_cost(logits: Sequence) -> Cost:
    """Divergence of the uniform distribution from the prediction, summed over real frames.

    `KL(uniform || p) = -ln V - mean_k ln p_k` in each frame, with V classes.

    Args:
      logits: `[batch, frames, classes]` of any float type, not normalised.

    Returns:
      One cost per example; an example without frames is not valid.
    """
    log_probabilities = jax.nn.log_softmax(_selected(logits, logits.mask), axis=-1)
    classes = log_probabilities.shape[-1]
    divergence = -jnp.log(float(classes)) - log_probabilities.mean(axis=-1)
    nats = jnp.where(logits.mask, divergence, 0.0).sum(axis=1)
    return Cost(nats=nats, valid=logits.lengths > 0)


def consistency_cost(logits: Sequence, target: Sequence) -> Cost:
    """Divergence of a prediction from that of another view, summed over real frames.

    CR-CTC (Yao et al. 2025, "CR-CTC: consistency regularization on CTC for improved speech
    recognition"): two views of each trial, augmented differently, teach each other. This is
    `KL(p_target || p)` of each frame; no gradient passes through the target.

    Args:
      logits: `[batch, frames, classes]` of any float type, not normalised.
      target: those of the other view, frame by frame of the same time; only frames real in both
        count.

    Returns:
      One cost per example; an example without frames is not valid.
    """
    mask = logits.mask & target.mask
    own, others = (jax.nn.log_softmax(_selected(x, mask), axis=-1) for x in (logits, target))
    others = jax.lax.stop_gradient(others)
    divergence = jnp.sum(jnp.exp(others) * (others - own), axis=-1)
    return Cost(nats=jnp.where(mask, divergence, 0.0).sum(axis=1), valid=mask.any(axis=1))


def diphone_labels(labels: Sequence) -> Sequence:
    """The diphone class of every phoneme label; the first follows silence, and padding becomes 0.

    DCoND (Li et al. 2024, arXiv:2411.10657) trains with the CTC loss of these and with that of the
    phonemes, whose probabilities are sums over the diphones that end in them.

    Args:
      labels: int `[batch, labels]` phoneme ids.
    """
    current = labels.masked().values
    start = jnp.full_like(current[:, :1], SILENCE)
    previous = jnp.concatenate([start, current], axis=1)[:, :-1]
    return labels.with_values(diphone_id(previous, current)).masked()


def flow_cost(predicted: Sequence, target: Sequence) -> Cost:
    """Half the squared error of a velocity, averaged over features, summed over real frames.

    The regression of conditional flow matching (Lipman et al. 2023), as nats per feature of a
    Gaussian of unit variance.

    Args:
      predicted: velocities `[batch, frames, d]` of any float type.
      target: the true ones; only frames real in both count.

    Returns:
      One cost per example; an example without frames is not valid.
    """
    mask = predicted.mask & target.mask
    squares = jnp.mean((_selected(predicted, mask) - _selected(target, mask)) ** 2, axis=-1)
    return Cost(nats=0.5 * squares.sum(axis=1), valid=mask.any(axis=1))


def _selected(
    x: Sequence, mask: Bool[Array, "batch frames"]
) -> Float[Array, "batch frames features"]:
    """The frames in the mask as float32, zero elsewhere."""
    return jnp.where(mask[..., None], x.values.astype(jnp.float32), 0.0)
