"""The selective state-space block (Mamba-2), forward in time or in both directions.

Its recurrence is linear in the state (Dao and Gu 2024):

    h_t = a_t h_{t-1} + x_t b_t^T,    y_t = h_t c_t

Each head has one decay `a_t` in (0, 1] and a state `h` of [width, state] numbers.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float

from modessm_jax.blocks.block import Block, Dropout, DropPath, split
from modessm_jax.blocks.convolution import DepthwiseConv
from modessm_jax.sequence import Sequence

STEP_SIZES = (1e-3, 1e-1)  # at initialisation, log-uniform; Gu and Dao 2023, section 3.6
DECAY_RATES = (1.0, 16.0)  # at initialisation, uniform; Dao and Gu 2024
CHUNK = 64  # frames computed at once by matrix products


def step_bias(key: jax.Array, shape: tuple[int, ...], dtype: Any) -> Float[Array, "..."]:
    """Biases whose softplus is log-uniform over `STEP_SIZES`: memories of 10 to 1000 frames."""
    low, high = np.log(STEP_SIZES)
    size = jnp.exp(jax.random.uniform(key, shape, dtype, low, high))
    return size + jnp.log(-jnp.expm1(-size))


class SelectiveScan(nnx.Module):
    """Mamba-2's layer in one direction: `d` features in, `d` out.

    A short causal depthwise convolution and SiLU give the scan its input `x` (`expand * d` features
    in `heads` groups) and its `state` input and output weights `b` and `c`. A step size
    `dt = softplus(linear(u))` for each head sets how much of a frame enters, `dt x b^T`, and how
    much of the past remains, `a = exp(-dt rate)`. The result, with `x` added to it by a learned
    weight, is gated by SiLU of the input, normalised and projected.

    `branches` is the number of such layers added up along a stack. The output weights begin that
    much smaller, so that untrained branches do not outweigh the input (Radford et al. 2019; Gu and
    Dao 2023 do the same).
    """

    def __init__(
        self,
        d: int,
        *,
        heads: int,
        state: int,
        expand: int,
        kernel: int,
        branches: int,
        dtype: Any,
        rngs: nnx.Rngs,
    ):
        inner = expand * d
        if inner % heads:
            raise ValueError(f"expand * d = {inner} is not a multiple of heads = {heads}")
        self.inner, self.heads, self.state, self.dtype = inner, heads, state, dtype
        self.gate = nnx.Linear(d, inner, dtype=dtype, rngs=rngs)
        self.signal = nnx.Linear(d, inner + 2 * state, dtype=dtype, rngs=rngs)
        self.conv = DepthwiseConv(inner + 2 * state, kernel, causal=True, dtype=dtype, rngs=rngs)
        # Step sizes span two decades and are multiplied over many frames: always float32.
        self.step_size = nnx.Linear(d, heads, bias_init=step_bias, dtype=jnp.float32, rngs=rngs)
        rates = jax.random.uniform(rngs.params(), (heads,), jnp.float32, *DECAY_RATES)
        self.log_rate = nnx.Param(jnp.log(rates))
        self.skip = nnx.Param(jnp.ones((heads,)))
        self.norm = nnx.RMSNorm(inner, dtype=dtype, rngs=rngs)
        small = nnx.initializers.variance_scaling(1 / branches, "fan_in", "normal")
        self.out = nnx.Linear(inner, d, kernel_init=small, dtype=dtype, rngs=rngs)

    def __call__(self, u: Sequence) -> Float[Array, "batch time d"]:
        """A whole sequence is one step from an empty past."""
        return self.step(self.initial_state(u.mask.shape[0]), u)[1]

    def initial_state(self, batch: int) -> Any:
        """The past frames of the convolution, and the float32 state of the recurrence."""
        shape = (batch, self.heads, self.inner // self.heads, self.state)
        return self.conv.initial_state(batch), jnp.zeros(shape, jnp.float32)

    def step(self, state: Any, u: Sequence) -> tuple[Any, Float[Array, "batch time d"]]:
        """The next frames, any number of them."""
        window, hidden = state
        window, filtered = self.conv.step(window, u.with_values(self.signal(u.values)))
        signal = jax.nn.silu(filtered.values)
        x, b, c = jnp.split(signal, (self.inner, self.inner + self.state), axis=-1)
        x = x.reshape(*x.shape[:2], self.heads, -1)

        dt = jax.nn.softplus(self.step_size(u.values))
        log_decay = -dt * jnp.exp(self.log_rate[...])[None, None, :]
        y, hidden = selective_scan(dt[..., None] * x, log_decay, b, c, u.mask, hidden)
        y = y.astype(self.dtype) + self.skip[...].astype(self.dtype)[None, None, :, None] * x

        gated = y.reshape(*y.shape[:2], self.inner) * jax.nn.silu(self.gate(u.values))
        return (window, hidden), self.out(self.norm(gated))


class SelectiveBlock(Block):
    """LayerNorm, `SelectiveScan`, residual; a stack of them needs a norm at its end.

    A causal block streams frame by frame at constant memory. Otherwise a second scan with
    parameters of its own runs from the last real frame to the first and is added. `layers` is the
    number of such blocks in the stack. `rate` and `drop_path` are the probabilities of `Dropout`
    and `DropPath` in training.
    """

    def __init__(
        self,
        d: int,
        *,
        heads: int,
        state: int,
        expand: int,
        kernel: int,
        layers: int,
        rate: float,
        drop_path: float,
        causal: bool,
        dtype: Any,
        rngs: nnx.Rngs,
    ):
        sizes: Any = dict(heads=heads, state=state, expand=expand, kernel=kernel)
        sizes |= dict(branches=layers if causal else 2 * layers, dtype=dtype, rngs=rngs)
        self.back, self.ahead = None, 0 if causal else None
        self.norm = nnx.LayerNorm(d, dtype=dtype, rngs=rngs)
        self.forward = SelectiveScan(d, **sizes)
        self.backward = None if causal else SelectiveScan(d, **sizes)
        self.dropout = Dropout(rate)
        self.drop_path = DropPath(drop_path)

    def __call__(self, x: Sequence, *, key: jax.Array | None = None) -> Sequence:
        return self._run(self.initial_state(x.mask.shape[0]), x, key)[1]

    def initial_state(self, batch: int) -> Any:
        return self.forward.initial_state(batch)

    def step(self, state: Any, x: Sequence) -> tuple[Any, Sequence]:
        self.check_step(x)
        return self._run(state, x, None)

    def _run(self, state: Any, x: Sequence, key: jax.Array | None) -> tuple[Any, Sequence]:
        keys = split(key, 2)
        x = x.masked()
        normed = x.with_values(self.norm(x.values))
        state, branch = self.forward.step(state, normed)
        if self.backward is not None:
            branch = branch + jnp.flip(self.backward(reverse(normed)), axis=1)
        branch = self.drop_path(self.dropout(branch, keys[0]), keys[1])
        return state, x.with_values(x.values + branch)


def reverse(x: Sequence) -> Sequence:
    """The frames from last to first, padding in front.

    Padding neither enters the window of the convolution nor changes the state of the scan, so a
    trial begins at its last real frame, from an empty past. No gather by length is needed, whose
    gradient would be a scatter.
    """
    return jax.tree.map(lambda frames: jnp.flip(frames, axis=1), x)


def selective_scan(
    x: Float[Array, "batch time heads width"],
    log_decay: Float[Array, "batch time heads"],
    b: Float[Array, "batch time state"],
    c: Float[Array, "batch time state"],
    mask: Bool[Array, "batch time"],
    state: Float[Array, "batch heads width state"],
    *,
    chunk: int = CHUNK,
) -> tuple[Float[Array, "batch time heads width"], Float[Array, "batch heads width state"]]:
    """Runs the recurrence over the real frames; padding leaves the state as it was.

    It runs by matrix products over `chunk` frames at a time: the block decomposition of SSD (Dao
    and Gu 2024). The gradient keeps only the state between chunks and computes the rest of a chunk
    again; frame by frame it would take several times the time and memory (`benchmarks/scan.py`).

    Decays, their sums and the state are float32 at least: products of many decays, and a state that
    lives as long as a stream, outgrow bfloat16. The matrix products read float32 numbers as
    precisely as the device does by default: a GPU rounds them to TF32 (10 bits after the point) and
    a TPU to bfloat16 before it multiplies, unless `jax_default_matmul_precision` is set otherwise.
    Sums of products stay float32.

    Args:
        x: the input of each head.
        log_decay: logarithms of the decays `a_t`.
        b: input weights.
        c: output weights.
        mask: the real frames.
        state: before the first frame.
        chunk: frames computed at once; changes speed and memory alone.

    Returns:
        The outputs, whose padding is meaningless but finite, and the state after the last frame,
        from which a stream goes on.
    """
    dtype = jnp.promote_types(x.dtype, jnp.float32)
    x, log_decay, b, c = (
        Sequence(part.astype(dtype), mask).masked().values for part in (x, log_decay, b, c)
    )
    time = x.shape[1]
    chunk = min(chunk, time)
    extra = -time % chunk

    def cut(part: jax.Array) -> jax.Array:
        """[batch, time, ...] to [chunks, batch, chunk, ...]; zeros leave the state as it was."""
        part = jnp.pad(part, ((0, 0), (0, extra)) + ((0, 0),) * (part.ndim - 2))
        return jnp.moveaxis(part.reshape(part.shape[0], -1, chunk, *part.shape[2:]), 1, 0)

    chunks = cut(x), cut(log_decay), cut(b), cut(c)
    state, y = jax.lax.scan(_advance_chunk, state.astype(dtype), chunks)
    y = jnp.moveaxis(y, 0, 1)
    return y.reshape(y.shape[0], time + extra, *y.shape[3:])[:, :time], state


@jax.checkpoint
def _advance_chunk(
    h: jax.Array, frames: tuple[jax.Array, jax.Array, jax.Array, jax.Array]
) -> tuple[jax.Array, jax.Array]:
    """One chunk: the contributions of its own frames and of the state before it."""
    x, log_decay, b, c = frames
    total = jnp.cumsum(log_decay, axis=1).swapaxes(1, 2)  # [batch, heads, chunk]
    between = total[:, :, :, None] - total[:, :, None, :]  # log decay from frame s to frame t
    past = jnp.tril(jnp.ones(between.shape[2:], bool))[None, None]
    # Masked before the exponential, which would overflow for the future and spoil the gradient.
    weights = jnp.exp(jnp.where(past, between, -jnp.inf))
    weights = weights * jnp.einsum("btn,bsn->bts", c, b)[:, None]
    from_state = jnp.exp(total).swapaxes(1, 2)[..., None]
    y = jnp.einsum("bhts,bshp->bthp", weights, x)
    y = y + jnp.einsum("btn,bhpn->bthp", c, h) * from_state

    last = total[:, :, -1:]
    to_end = jnp.exp(last - total).swapaxes(1, 2)[..., None]
    h = jnp.exp(last)[..., None] * h + jnp.einsum("bthp,btn->bhpn", x * to_end, b)
    return h, y
