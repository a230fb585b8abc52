"""The selective state-space block, forward in time or in both directions."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from modessm_jax.models.block import Block, Dropout, DropPath, split
from modessm_jax.models.convolution import DepthwiseConv
from modessm_jax.models.scan import selective_scan
from modessm_jax.sequence import Sequence

STEP_SIZES = (1e-3, 1e-1)  # at initialisation, log-uniform; Gu and Dao 2023, section 3.6
DECAY_RATES = (1.0, 16.0)  # at initialisation, uniform; Dao and Gu 2024


def step_bias(key: jax.Array, shape: tuple[int, ...], dtype: Any) -> Float[Array, "..."]:
    """Biases whose softplus is log-uniform over `STEP_SIZES`: heads remember 10 to 1000 frames."""
    low, high = np.log(STEP_SIZES)
    size = jnp.exp(jax.random.uniform(key, shape, dtype, low, high))
    return size + jnp.log(-jnp.expm1(-size))


class SelectiveScan(nnx.Module):
    """Mamba-2's mixer of a sequence in one direction: `d` features in, `d` out.

    A short causal depthwise convolution and SiLU give the scan its input `x` (`expand * d` features
    in `heads` groups) and its `state` input and output weights `b` and `c`. A step size
    `dt = softplus(linear(u))` for each head sets how much of a frame enters, `dt x b^T`, and how
    much of the past leaves, `a = exp(-dt rate)`. The result, with `x` added to it by a learned
    weight, is gated by SiLU of the input, normalised and projected. Where `branches` such mixers
    are added up along a stack, each begins that much weaker, so that what none has learned yet does
    not drown the input (Radford et al. 2019; Gu and Dao 2023 do the same).
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
        """The frames the convolution still sees, and the float32 state of the recurrence."""
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
    """LayerNorm, `SelectiveScan`, residual; a stack of them wants a norm at its end.

    Causal, it streams frame by frame at constant memory. Otherwise a second scan runs from the last
    real frame to the first and is added; parameters but the norm's are then twice as many.
    `layers` is how many such blocks are stacked. `rate` and `drop_path` are the chances of
    `Dropout` and `DropPath` in training.
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
        def scan() -> SelectiveScan:
            return SelectiveScan(
                d,
                heads=heads,
                state=state,
                expand=expand,
                kernel=kernel,
                branches=layers if causal else 2 * layers,
                dtype=dtype,
                rngs=rngs,
            )

        self.back, self.ahead = None, 0 if causal else None
        self.norm = nnx.LayerNorm(d, dtype=dtype, rngs=rngs)
        self.forward = scan()
        self.backward = None if causal else scan()
        self.dropout = Dropout(rate)
        self.drop_path = DropPath(drop_path)

    def __call__(self, x: Sequence, *, key: jax.Array | None = None) -> Sequence:
        _, y = self._run(self.initial_state(x.mask.shape[0]), x, key)
        return y

    def initial_state(self, batch: int) -> Any:
        return self.forward.initial_state(batch)

    def step(self, state: Any, x: Sequence) -> tuple[Any, Sequence]:
        if self.backward is not None:
            raise ValueError(
                "a block that scans in both directions sees the whole trial: not causal"
            )
        return self._run(state, x, None)

    def _run(self, state: Any, x: Sequence, key: jax.Array | None) -> tuple[Any, Sequence]:
        keys = split(key, 2)
        x = x.masked()
        normed = x.with_values(self.norm(x.values))
        state, branch = self.forward.step(state, normed)
        if self.backward is not None:
            branch = branch + jnp.flip(self.backward(reverse(normed)), axis=1)
        return state, x.with_values(
            x.values + self.drop_path(self.dropout(branch, keys[0]), keys[1])
        )


def reverse(x: Sequence) -> Sequence:
    """The frames from last to first, padding in front.

    Each example is reversed within its own length all the same, for padding neither enters the
    window of the convolution nor touches the state of the scan: a trial begins at its last real
    frame, from an empty past. No gather by length is needed, whose gradient would be a scatter.
    """
    return jax.tree.map(lambda frames: jnp.flip(frames, axis=1), x)
