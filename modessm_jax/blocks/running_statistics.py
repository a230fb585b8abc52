"""Mean and variance of the real frames, of a whole trial or of a stream so far."""

import jax
import jax.numpy as jnp

from modessm_jax.sequence import Sequence

Sums = tuple[jax.Array, jax.Array, jax.Array]


def prior(batch: int, features: int, frames: float) -> Sums:
    """Number, sum and sum of squares of `frames` frames of mean 0 and variance 1, in float32.

    Starting from these keeps the variance of a short trial, of the first frames of a stream and of
    a constant feature well above zero.
    """
    squares = jnp.full((batch, features), frames)
    return jnp.full((batch, 1), frames), jnp.zeros_like(squares), squares


def of_trial(start: Sums, x: Sequence) -> tuple[jax.Array, jax.Array]:
    """Mean and variance of the frames in `start` and all of `x`, `[batch, 1, features]` each."""
    new = [part.sum(axis=1, keepdims=True) for part in _powers(x)]
    return _mean_and_variance(*(old[:, None] + part for old, part in zip(start, new, strict=True)))


def so_far(start: Sums, x: Sequence) -> tuple[Sums, tuple[jax.Array, jax.Array]]:
    """The sums after `x`, and the mean and variance of all frames up to each frame of `x`.

    Mean and variance are `[batch, time, features]` each; padding repeats the last real frame.
    """
    new = [jnp.cumsum(part, axis=1) for part in _powers(x)]
    count, total, squares = (old[:, None] + part for old, part in zip(start, new, strict=True))
    last = count[:, -1], total[:, -1], squares[:, -1]
    return last, _mean_and_variance(count, total, squares)


def _mean_and_variance(
    count: jax.Array, total: jax.Array, squares: jax.Array
) -> tuple[jax.Array, jax.Array]:
    mean = total / count
    return mean, squares / count - mean**2  # the prior keeps it well above rounding errors


def _powers(x: Sequence) -> Sums:
    """1, x and x squared on the real frames, 0 on padding."""
    values = x.masked().values.astype(jnp.float32)
    return x.mask[..., None].astype(jnp.float32), values, values**2
