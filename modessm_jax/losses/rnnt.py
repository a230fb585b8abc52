"""The RNN-T loss of logits held in memory, and the transducer lattice below every RNN-T loss.

The loss sums over all ways to interleave frames and labels (Graves 2012, "Sequence transduction
with recurrent neural networks"). Cell (t, u) of the lattice stands before frame t, after u labels.
The blank leads to (t + 1, u), the next label to (t, u + 1). The end is the blank out of the last
frame after all labels.

The anti-diagonals n = t + u are taken in turn, all their cells at once. They run from the end back
to (0, 0), where the lattices of all examples meet whatever their sizes. Of each cell only the share
of its probability that leaves by the blank is kept. The gradient is the flow of one unit from
(0, 0) along those shares: products and sums of numbers between 0 and 1, which is exact where
differences of large log probabilities are not.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from modessm_jax.losses.cost import Cost
from modessm_jax.losses.logspace import IMPOSSIBLE, ZERO, log_add
from modessm_jax.phonemes import BLANK
from modessm_jax.sequence import Sequence


def rnnt_cost(logits: Sequence, labels: Sequence) -> Cost:
    """Minus the log probability of the labels, summed over all alignments (Graves 2012).

    The gradient with respect to the logits is formed at once from the flow through the lattice (Li
    et al. 2019, "Improving RNN transducer modeling for end-to-end speech recognition"), so that
    nothing the size of the logits is held beside them. Where the logits themselves are too large
    to hold use `transducer_cost`. Computed in float32, or in float64 for float64 logits.

    Args:
      logits: `[batch, frames, labels + 1, classes]` of any float type, not normalised; the mask is
        over frames. Entry `[b, t, u]` scores what follows frame t and the first u labels.
      labels: int `[batch, labels]`; real labels come first and none of them is the blank.

    Returns:
      One cost per example, in nats. An example without frames is not valid; every other can be
      aligned.

    Raises:
      ValueError: the logits do not have one position more than there are labels.
    """
    ids = next_labels(labels, logits.values.shape[2])
    valid = logits.lengths > 0
    nats: Any = _logits_nats(logits.values, ids, logits.lengths, labels.lengths)
    return Cost(nats=jnp.where(valid, nats, 0.0), valid=valid)


def next_labels(labels: Sequence, positions: int) -> Int[Array, "batch positions"]:
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


@jax.custom_vjp
def _logits_nats(
    logits: Float[Array, "batch frames positions classes"],
    ids: Int[Array, "batch positions"],
    frames: Int[Array, "batch"],
    counts: Int[Array, "batch"],
) -> Float[Array, "batch"]:
    return _logits_forward(logits, ids, frames, counts)[0]


def _logits_forward(logits: Any, ids: Any, frames: Any, counts: Any) -> Any:
    scores = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    norm = jax.nn.logsumexp(scores, axis=-1)
    label = _pick(logits, ids).astype(norm.dtype) - norm
    nats, shares = _sweep(scores[..., BLANK] - norm, label, frames, counts)
    return nats, (logits, norm, ids, frames, counts, shares, ~jnp.isposinf(nats))


def _logits_backward(kept: Any, weight: Any) -> tuple[Any, None, None, None]:
    logits, norm, ids, frames, counts, shares, possible = kept
    by_blank, by_label = _flows(shares, frames, counts)
    weight = jnp.where(possible, weight, 0)[:, None, None]
    by_blank, by_label = weight * by_blank, weight * by_label
    through = (by_blank + by_label)[..., None]
    classes = jnp.arange(logits.shape[-1])[None, None, None, :]
    gradient = through * jnp.exp(logits.astype(norm.dtype) - norm[..., None])
    gradient -= jnp.where(classes == BLANK, by_blank[..., None], 0)
    gradient -= jnp.where(classes == ids[:, None, :, None], by_label[..., None], 0)
    # Cells outside an example are selected away, not multiplied: their logits may be NaN.
    return jnp.where(through != 0, gradient, 0).astype(logits.dtype), None, None, None


_logits_nats.defvjp(_logits_forward, _logits_backward)


def _pick(logits: Any, ids: Any) -> Any:
    """The logit of each position's label, [batch, frames, positions].

    The wanted classes are the same columns in every frame; gathering columns is faster than
    picking one class from each cell.
    """
    _, time, positions, classes = logits.shape
    columns = ids + classes * jnp.arange(positions, dtype=ids.dtype)[None, :]
    return jax.vmap(lambda x, at: x.reshape(time, -1)[:, at])(logits, columns)


@jax.custom_vjp
def lattice_nats(
    blank: Float[Array, "batch frames positions"],
    label: Float[Array, "batch frames positions"],
    frames: Int[Array, "batch"],
    counts: Int[Array, "batch"],
) -> Float[Array, "batch"]:
    """Minus the log probability of the labels, given that of each step through the lattice.

    Args:
      blank: log probability of the blank in each cell; `positions` = labels + 1.
      label: that of the next label; those beyond an example's last label are not used.
      frames: real frames of each example.
      counts: its labels. Cells outside an example may be NaN; their gradient is exactly zero.

    Returns:
      Nats; inf for an example that is impossible or has no frames.
    """
    return _sweep(blank, label, frames, counts)[0]


def _lattice_forward(blank: Any, label: Any, frames: Any, counts: Any) -> Any:
    nats, shares = _sweep(blank, label, frames, counts)
    return nats, (shares, frames, counts, ~jnp.isposinf(nats))


def _lattice_backward(kept: Any, weight: Any) -> tuple[Any, Any, None, None]:
    shares, frames, counts, possible = kept
    by_blank, by_label = _flows(shares, frames, counts)
    weight = jnp.where(possible, -weight, 0)[:, None, None]
    return weight * by_blank, weight * by_label, None, None


lattice_nats.defvjp(_lattice_forward, _lattice_backward)


def _sweep(blank: Any, label: Any, frames: Any, counts: Any) -> tuple[Any, Any]:
    """The nats, and the blank's share of each cell, [diagonals, batch, positions]."""
    real = _inside(blank.shape, frames, counts)
    more = real & (jnp.arange(blank.shape[2])[None, None, :] < counts[:, None, None])
    zero = jnp.full((), ZERO, blank.dtype)
    blank = _skew(jnp.where(real, jnp.maximum(blank, ZERO), zero))
    label = _skew(jnp.where(more, jnp.maximum(label, ZERO), zero))
    last = (frames - 1 + counts)[:, None]
    position = jnp.arange(blank.shape[2])[None, :]

    def step(carry: Any, diagonal: Any) -> Any:
        onward, taken = carry
        number, blank, label = diagonal
        ends = (number == last) & (position == counts[:, None])
        by_blank = jnp.where(ends, 0, onward) + blank
        by_label = jnp.pad(onward[:, 1:], ((0, 0), (0, 1)), constant_values=ZERO) + label
        onward, share = log_add(by_blank, by_label)
        # The likeliest cell's log probability is subtracted from all: small numbers round finely.
        top = onward.max(axis=1)
        top = jnp.where(top > IMPOSSIBLE, top, 0)
        return (onward - top[:, None], taken + top), share

    start = (jnp.full_like(blank[0], ZERO), jnp.zeros_like(blank[0, :, 0]))
    given = (jnp.arange(blank.shape[0]), blank, label)
    (onward, taken), shares = jax.lax.scan(step, start, given, reverse=True)
    total = onward[:, 0] + taken
    possible = ~(total < IMPOSSIBLE) & (frames > 0)  # NaN is passed on, not hidden
    return jnp.where(possible, -total, jnp.inf), shares


def _flows(shares: Any, frames: Any, counts: Any) -> tuple[Any, Any]:
    """How much of one unit leaves each cell by its blank and by its label.

    Both `[batch, frames, positions]`; zero outside the examples. Minus the gradient of the nats.
    """
    diagonals, _, positions = shares.shape

    def step(occupied: Any, share: Any) -> Any:
        by_blank = occupied * share
        by_label = occupied - by_blank
        return by_blank + jnp.pad(by_label[:, :-1], ((0, 0), (1, 0))), (by_blank, by_label)

    start = jnp.where(jnp.arange(positions)[None, :] == 0, jnp.ones_like(shares[0]), 0)
    _, (by_blank, by_label) = jax.lax.scan(step, start, shares)
    time = diagonals - positions + 1
    real = _inside((shares.shape[1], time, positions), frames, counts)
    return jnp.where(real, _unskew(by_blank), 0), jnp.where(real, _unskew(by_label), 0)


def _inside(shape: tuple[int, ...], frames: Any, counts: Any) -> Any:
    """Which cells of the padded lattice belong to their example."""
    _, time, positions = shape
    in_time = jnp.arange(time)[None, :, None] < frames[:, None, None]
    return in_time & (jnp.arange(positions)[None, None, :] <= counts[:, None, None])


def _skew(x: Any) -> Any:
    """[batch, frames, positions] -> [frames + positions - 1, batch, positions]: the diagonals.

    Entry [n, b, u] is x[b, n - u, u]. Reading a padded array in rows one entry longer shifts each
    row one further than the last, without a gather.
    """
    batch, time, positions = x.shape
    x = jnp.pad(x.swapaxes(1, 2), ((0, 0), (0, 0), (0, positions)), constant_values=ZERO)
    diagonals = time + positions - 1
    x = x.reshape(batch, -1)[:, : positions * diagonals].reshape(batch, positions, diagonals)
    return x.transpose(2, 0, 1)


def _unskew(x: Any) -> Any:
    """Undoes `_skew`."""
    diagonals, batch, positions = x.shape
    x = jnp.pad(x.transpose(1, 2, 0).reshape(batch, -1), ((0, 0), (0, positions)))
    x = x.reshape(batch, positions, diagonals + 1)[:, :, : diagonals - positions + 1]
    return x.swapaxes(1, 2)
