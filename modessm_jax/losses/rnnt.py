"""The RNN-T loss of logits that stand in memory, per example, in nats."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from modessm_jax.losses.cost import Cost
from modessm_jax.losses.lattice import flows, sweep
from modessm_jax.phonemes import BLANK
from modessm_jax.sequence import Sequence


def rnnt_cost(logits: Sequence, labels: Sequence, *, fastemit: float = 0.0) -> Cost:
    """Minus the log probability of the labels, summed over all alignments (Graves 2012).

    The gradient with respect to the logits is formed at once from the flow through the lattice (Li
    et al. 2019, "Improving RNN transducer modeling for end-to-end speech recognition"), so that
    nothing the size of the logits is held beside them. Where the logits themselves are too large
    to hold use `transducer_cost`. Computed in float32, or in float64 for float64 logits.

    Args:
      logits: `[batch, frames, labels + 1, classes]` of any float type, not normalised; the mask is
        over frames. Entry `[b, t, u]` scores what follows frame t and the first u labels.
      labels: int `[batch, labels]`; real labels come first and none of them is the blank.
      fastemit: weight of FastEmit (Yu et al. 2021); changes the gradient, not the cost.

    Returns:
      One cost per example. An example without frames is not valid; every other can be aligned.

    Raises:
      ValueError: the logits do not have one position more than there are labels.
    """
    ids = following(labels, logits.values.shape[2])
    valid = logits.lengths > 0
    nats: Any = _nats(logits.values, ids, logits.lengths, labels.lengths, fastemit)
    return Cost(nats=jnp.where(valid, nats, 0.0), valid=valid)


def following(labels: Sequence, positions: int) -> Int[Array, "batch positions"]:
    """The label that follows each position; the blank after the last.

    Raises:
      ValueError: there is not one position more than there are labels.
    """
    if positions != labels.mask.shape[1] + 1:
        raise ValueError(
            f"there are {positions} predictor positions for labels padded to "
            f"{labels.mask.shape[1]}; give one more position than labels"
        )
    ids = jnp.where(labels.mask, labels.values, BLANK).astype(jnp.int32)
    return jnp.pad(ids, ((0, 0), (0, 1)), constant_values=BLANK)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def _nats(
    logits: Float[Array, "batch frames positions classes"],
    ids: Int[Array, "batch positions"],
    frames: Int[Array, "batch"],
    counts: Int[Array, "batch"],
    fastemit: float,
) -> Float[Array, "batch"]:
    return _forward(logits, ids, frames, counts, fastemit)[0]


def _forward(logits: Any, ids: Any, frames: Any, counts: Any, fastemit: float) -> Any:
    del fastemit
    scores = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    norm = jax.nn.logsumexp(scores, axis=-1)
    label = _pick(logits, ids).astype(norm.dtype) - norm
    nats, shares = sweep(scores[..., BLANK] - norm, label, frames, counts)
    return nats, (logits, norm, ids, frames, counts, shares, ~jnp.isposinf(nats))


def _backward(fastemit: float, kept: Any, weight: Any) -> tuple[Any, None, None, None]:
    logits, norm, ids, frames, counts, shares, possible = kept
    by_blank, by_label = flows(shares, frames, counts)
    weight = jnp.where(possible, weight, 0)[:, None, None]
    by_blank, by_label = weight * by_blank, weight * (1 + fastemit) * by_label
    through = (by_blank + by_label)[..., None]
    classes = jnp.arange(logits.shape[-1])[None, None, None, :]
    gradient = through * jnp.exp(logits.astype(norm.dtype) - norm[..., None])
    gradient -= jnp.where(classes == BLANK, by_blank[..., None], 0)
    gradient -= jnp.where(classes == ids[:, None, :, None], by_label[..., None], 0)
    # Cells outside an example are selected away, not multiplied: their logits may be NaN.
    return jnp.where(through != 0, gradient, 0).astype(logits.dtype), None, None, None


def _pick(logits: Any, ids: Any) -> Any:
    """The logit of each position's label, [batch, frames, positions].

    The wanted classes are the same columns in every frame; gathering columns is faster than
    picking one class from each cell.
    """
    _, time, positions, classes = logits.shape
    columns = ids + classes * jnp.arange(positions, dtype=ids.dtype)[None, :]
    return jax.vmap(lambda x, at: x.reshape(time, -1)[:, at])(logits, columns)


_nats.defvjp(_forward, _backward)
