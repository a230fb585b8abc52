"""The CTC loss (connectionist temporal classification) and its gradient.

The lattice of an example has two kinds of states: blank u (before label u; u = 0..U) and label u
(u = 0..U-1). The sum over alignments runs from the last frame to the first, so that examples of
unequal length all end in the same two states, blank 0 and label 0. Each step keeps, for every
state, the share of its probability that stays where it is. The gradient then runs from the first
frame to the last and needs nothing else: the occupancy of the states flows along those shares.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from modessm_jax.losses.cost import Cost
from modessm_jax.losses.logspace import IMPOSSIBLE, ZERO, log_add
from modessm_jax.phonemes import BLANK
from modessm_jax.sequence import Sequence


def feasible(logits: Sequence, labels: Sequence) -> Bool[Array, "batch"]:
    """Whether each example has enough frames to emit its labels.

    CTC needs a frame for each label, and one for the blank between two equal neighbours. An example
    without labels needs one frame; one without frames (a row that fills up the batch) is never
    feasible.
    """
    repeats = (labels.values[:, 1:] == labels.values[:, :-1]) & labels.mask[:, 1:]
    needed = labels.lengths + repeats.sum(axis=1, dtype=jnp.int32)
    return logits.lengths >= jnp.maximum(needed, 1)


def ctc_cost(logits: Sequence, labels: Sequence) -> Cost:
    """Minus the log probability of the labels, summed over all alignments.

    Graves et al. 2006, "Connectionist temporal classification"; class 0 is the blank. Costs and
    their gradients are computed in float32, or in float64 for float64 logits.

    Args:
      logits: `[batch, frames, classes]` of any float type, not normalised. A class may be ruled out
        by -inf; labels that are thereby impossible cost inf and have no gradient.
      labels: int `[batch, labels]`; real labels come first and none of them is the blank.

    Returns:
      One cost per example, in nats; an example that is not `feasible` is not valid.
    """
    valid = feasible(logits, labels)
    nats = _nats(logits.values, _ids(labels), logits.lengths, labels.lengths)
    return Cost(nats=jnp.where(valid, nats, 0.0), valid=valid)


def _ids(labels: Sequence) -> Int[Array, "batch labels"]:
    """Label ids with blanks for padding, at least one column wide."""
    ids = jnp.where(labels.mask, labels.values, BLANK).astype(jnp.int32)
    return jnp.pad(ids, ((0, 0), (0, 1))) if not ids.shape[1] else ids


@jax.custom_vjp
def _nats(
    logits: Float[Array, "batch frames classes"],
    labels: Int[Array, "batch labels"],
    frames: Int[Array, "batch"],
    counts: Int[Array, "batch"],
) -> Float[Array, "batch"]:
    return _forward(logits, labels, frames, counts)[0]


def _forward(logits: Any, ids: Any, frames: Any, counts: Any) -> tuple[Any, tuple[Any, ...]]:
    scores = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    norm = jax.nn.logsumexp(scores, axis=-1)
    log_probabilities = jnp.maximum(scores - norm[..., None], ZERO).swapaxes(0, 1)

    one, zero = jnp.zeros((), scores.dtype), jnp.full((), ZERO, scores.dtype)
    state = jnp.arange(ids.shape[1] + 1)[None, :]
    end_blank = jnp.where(state == counts[:, None], one, zero)
    end_label = jnp.where(state[:, 1:] == counts[:, None], one, zero)
    skips = _skips(ids)

    def step(carry: Any, frame: Any) -> Any:
        # Log probability of all that follows, from each state of the next frame on.
        blanks, labels, taken = carry
        time, log_probability = frame
        blank = log_probability[:, BLANK, None]
        label = jnp.take_along_axis(log_probability, ids, axis=-1)
        pool, blank_stays = log_add(blanks, jnp.pad(labels, ((0, 0), (0, 1)), constant_values=ZERO))
        # Out of a label: the next label may follow at once unless it is the same again.
        leaving = jnp.where(skips, pool[:, 1:], blanks[:, 1:])
        rest, label_stays = log_add(labels, leaving)
        last = (time == frames - 1)[:, None]
        blanks = jnp.where(last, end_blank, pool) + blank
        labels = jnp.where(last, end_label, rest) + label
        # The likeliest state's log probability is subtracted from all: small numbers round finely.
        top = jnp.maximum(blanks.max(axis=1), labels.max(axis=1))
        top = jnp.where(top > IMPOSSIBLE, top, 0)
        blanks, labels = blanks - top[:, None], labels - top[:, None]
        return (blanks, labels, taken + top), (blank_stays, label_stays)

    nothing = (
        jnp.full_like(end_blank, ZERO),
        jnp.full_like(end_label, ZERO),
        jnp.zeros_like(norm[:, 0]),
    )
    given = (jnp.arange(scores.shape[1]), log_probabilities)
    (blanks, labels, taken), stays = jax.lax.scan(step, nothing, given, reverse=True)
    total, starts_blank = log_add(blanks[:, 0], labels[:, 0])
    total = total + taken
    possible = ~(total < IMPOSSIBLE) & (frames > 0)  # NaN is passed on, not hidden
    nats = jnp.where(possible, -total, jnp.inf)
    return nats, (logits, norm, ids, frames, possible, starts_blank, stays)


def _occupancy(kept: tuple[Any, ...]) -> Any:
    """Probability of each label in each frame, [batch, frames, labels]; anything in padding."""
    _, _, labels, _, _, starts_blank, stays = kept
    skips = _skips(labels)
    first = jnp.arange(labels.shape[1] + 1)[None, :] == 0

    def step(occupied: Any, stays: Any) -> Any:
        blanks, labels = occupied
        blank_stays, label_stays = stays
        staying = labels * label_stays
        leaving = labels - staying
        pool = blanks + _shift(jnp.where(skips, leaving, 0))
        resting = pool * blank_stays
        next_blanks = resting + _shift(jnp.where(skips, 0, leaving))
        next_labels = staying + (pool - resting)[:, :-1]
        return (next_blanks, next_labels), labels

    start = (
        jnp.where(first, starts_blank[:, None], 0),
        jnp.where(first[:, :-1], 1 - starts_blank[:, None], 0),
    )
    return jax.lax.scan(step, start, stays)[1].swapaxes(0, 1)


def _backward(kept: tuple[Any, ...], weight: Any) -> tuple[Any, None, None, None]:
    logits, norm, labels, frames, possible, _, _ = kept
    occupancy = _occupancy(kept)
    classes = logits.shape[-1]
    of_class = jax.nn.one_hot(labels, classes, dtype=norm.dtype)
    spent = jnp.einsum("btl,blv->btv", occupancy, of_class, precision=jax.lax.Precision.HIGHEST)
    is_blank = jnp.arange(classes)[None, None, :] == BLANK
    on_blank = jnp.where(is_blank, 1 - occupancy.sum(axis=-1, keepdims=True), 0)
    gradient = jnp.exp(logits.astype(norm.dtype) - norm[..., None]) - spent - on_blank
    real = (jnp.arange(logits.shape[1])[None, :] < frames[:, None]) & possible[:, None]
    gradient = jnp.where(real[..., None], gradient * weight[:, None, None], 0)
    return gradient.astype(logits.dtype), None, None, None


_nats.defvjp(_forward, _backward)


def _skips(labels: Any) -> Any:
    """Whether a label may be followed by the next without a blank, [batch, labels]."""
    return jnp.pad(labels[:, 1:] != labels[:, :-1], ((0, 0), (0, 1)))


def _shift(x: Any) -> Any:
    """[batch, labels] -> [batch, labels + 1], with 0 before the first."""
    return jnp.pad(x, ((0, 0), (1, 0)))
