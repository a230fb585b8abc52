"""The linear recurrence of a selective state-space layer: frame by frame, or in chunks.

    h_t = a_t h_{t-1} + x_t b_t^T,    y_t = h_t c_t

Each head has one decay `a_t` in (0, 1] and a state `h` of [width, state] numbers (Mamba-2, Dao and
Gu 2024). Decays are given as logarithms. Both forms start from a given state and return the last
one, so a stream is the same function called again.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from modessm_jax.sequence import Sequence

CHUNK = 64


def selective_scan(
    x: Float[Array, "batch time heads width"],
    log_decay: Float[Array, "batch time heads"],
    b: Float[Array, "batch time state"],
    c: Float[Array, "batch time state"],
    mask: Bool[Array, "batch time"],
    state: Float[Array, "batch heads width state"],
) -> tuple[Float[Array, "batch time heads width"], Float[Array, "batch heads width state"]]:
    """Runs the recurrence over the real frames; padding leaves the state as it was.

    Decays, their sums and the state are float32 at least: products of many decays, and a state that
    lives as long as a stream, outgrow bfloat16. The matrix products read float32 numbers as
    precisely as the device does by default: a GPU rounds them to TF32 (10 bits after the point) and
    a TPU to bfloat16 before it multiplies, unless `jax_default_matmul_precision` says otherwise.
    Sums of products stay float32.

    Always in chunks, on CPU as well: training through `recurrent` keeps the state of every frame
    for the gradient, and takes several times the time and memory (`benchmarks/scan.py`). A stream's
    lone frame is a chunk of its own.

    Returns:
        The outputs, whose padding is meaningless but finite, and the state after the last frame.
    """
    dtype = jnp.promote_types(x.dtype, jnp.float32)
    x, log_decay, b, c = (
        Sequence(part.astype(dtype), mask).masked().values for part in (x, log_decay, b, c)
    )
    return chunked(x, log_decay, b, c, state.astype(dtype))


def recurrent(
    x: Float[Array, "batch time heads width"],
    log_decay: Float[Array, "batch time heads"],
    b: Float[Array, "batch time state"],
    c: Float[Array, "batch time state"],
    state: Float[Array, "batch heads width state"],
) -> tuple[Float[Array, "batch time heads width"], Float[Array, "batch heads width state"]]:
    """The recurrence as it is defined, one frame after the other."""

    def advance(h: jax.Array, frame: tuple[jax.Array, ...]) -> tuple[jax.Array, jax.Array]:
        x, log_decay, b, c = frame
        h = jnp.exp(log_decay)[..., None, None] * h + x[..., None] * b[:, None, None, :]
        return h, jnp.einsum("bhpn,bn->bhp", h, c)

    frames = [jnp.moveaxis(part, 1, 0) for part in (x, log_decay, b, c)]
    state, y = jax.lax.scan(advance, state, tuple(frames))
    return jnp.moveaxis(y, 0, 1), state


def chunked(
    x: Float[Array, "batch time heads width"],
    log_decay: Float[Array, "batch time heads"],
    b: Float[Array, "batch time state"],
    c: Float[Array, "batch time state"],
    state: Float[Array, "batch heads width state"],
    *,
    chunk: int = CHUNK,
) -> tuple[Float[Array, "batch time heads width"], Float[Array, "batch heads width state"]]:
    """The same by matrix products over `chunk` frames at a time: the block decomposition of SSD.

    The gradient keeps the state between chunks alone and computes the rest of a chunk again.
    """
    time = x.shape[1]
    chunk = min(chunk, time)
    extra = -time % chunk

    def cut(part: jax.Array) -> jax.Array:
        """[batch, time, ...] to [chunks, batch, chunk, ...]; zeros leave the state as it was."""
        part = jnp.pad(part, ((0, 0), (0, extra)) + ((0, 0),) * (part.ndim - 2))
        return jnp.moveaxis(part.reshape(part.shape[0], -1, chunk, *part.shape[2:]), 1, 0)

    state, y = jax.lax.scan(_advance_chunk, state, (cut(x), cut(log_decay), cut(b), cut(c)))
    y = jnp.moveaxis(y, 0, 1)
    return y.reshape(y.shape[0], time + extra, *y.shape[3:])[:, :time], state


@jax.checkpoint
def _advance_chunk(
    h: jax.Array, frames: tuple[jax.Array, jax.Array, jax.Array, jax.Array]
) -> tuple[jax.Array, jax.Array]:
    """One chunk: what its own frames give each other, and what the state before it gives them."""
    x, log_decay, b, c = frames
    total = jnp.cumsum(log_decay, axis=1).swapaxes(1, 2)  # [batch, heads, chunk]
    between = total[:, :, :, None] - total[:, :, None, :]  # log decay from frame s to frame t
    past = jnp.tril(jnp.ones(between.shape[2:], bool))[None, None]
    # Hidden before the exponential, which would overflow for the future and spoil the gradient.
    weights = jnp.exp(jnp.where(past, between, -jnp.inf))
    weights = weights * jnp.einsum("btn,bsn->bts", c, b)[:, None]
    from_state = jnp.exp(total).swapaxes(1, 2)[..., None]
    y = jnp.einsum("bhts,bshp->bthp", weights, x)
    y = y + jnp.einsum("btn,bhpn->bthp", c, h) * from_state

    last = total[:, :, -1:]
    to_end = jnp.exp(last - total).swapaxes(1, 2)[..., None]
    h = jnp.exp(last)[..., None] * h + jnp.einsum("bthp,btn->bhpn", x * to_end, b)
    return h, y
