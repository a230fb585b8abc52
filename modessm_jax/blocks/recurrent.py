"""Gated recurrent units, whole or step by step.

The products of a layer with its inputs are one matrix product over all frames, and so is the
gradient of its recurrent weights. Left to the scan, that gradient would be added up frame by frame,
each time over the whole matrix; it takes most of a training step then.
"""

import math
from collections.abc import Iterable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from modessm_jax.blocks.block import FrameDropout, rematerialised, split
from modessm_jax.sequence import Sequence


def _recur(
    inputs: jax.Array,
    mask: jax.Array,
    kernel: jax.Array,
    bias: jax.Array,
    initial: jax.Array,
    reverse: bool,
) -> jax.Array:
    """The states of a gated recurrent unit after each frame, `[time, batch, d]` in float32.

    Cho et al. 2014, in the form in which the reset gate applies after the recurrent product:
    `r, z = sigmoid(input + recurrent)`, `n = tanh(input + r * recurrent)`, `(1 - z) n + z state`,
    where `recurrent = state @ kernel + bias`. A frame that is not real leaves the state as it was.
    Gates and states are float32; the product has the type of `kernel`.

    Args:
        inputs: `[time, batch, 3 d]`, what the frames add to the gates r, z and n, in this order.
        mask: `[time, batch]`, true on real frames.
        kernel: `[d, 3 d]`.
        bias: `[3 d]`.
        initial: `[batch, d]`, the state before the first frame.
        reverse: whether time runs backwards, from the last frame to the first.
    """

    def advance(state: jax.Array, frame: tuple[jax.Array, jax.Array]) -> tuple[Any, jax.Array]:
        state, _ = _advance(state, *frame, kernel, bias)
        return state, state

    return jax.lax.scan(advance, initial, (inputs, mask), reverse=reverse)[1]


def _advance(
    state: jax.Array, inputs: jax.Array, mask: jax.Array, kernel: jax.Array, bias: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    """The next state, and what its gradient is computed from."""
    f32 = jnp.float32
    recurrent = jnp.dot(state.astype(kernel.dtype), kernel, preferred_element_type=f32)
    recurrent_r, recurrent_z, recurrent_n = jnp.split(recurrent + bias[None, :], 3, axis=-1)
    input_r, input_z, input_n = jnp.split(inputs.astype(f32), 3, axis=-1)
    r, z = jax.nn.sigmoid(input_r + recurrent_r), jax.nn.sigmoid(input_z + recurrent_z)
    n = jnp.tanh(input_n + r * recurrent_n)
    new = jnp.where(mask[:, None], n + z * (state - n), state)
    return new, (r, z, n, recurrent_n)


def _recur_forward(
    inputs: jax.Array,
    mask: jax.Array,
    kernel: jax.Array,
    bias: jax.Array,
    initial: jax.Array,
    reverse: bool,
) -> tuple[jax.Array, tuple]:
    def advance(state: jax.Array, frame: tuple[jax.Array, jax.Array]) -> tuple[Any, Any]:
        new, gates = _advance(state, *frame, kernel, bias)
        return new, (state, new, gates)

    _, (before, after, gates) = jax.lax.scan(advance, initial, (inputs, mask), reverse=reverse)
    return after, (before, mask, gates, kernel, jnp.zeros((0,), inputs.dtype))


def _recur_backward(reverse: bool, saved: tuple, grad: jax.Array) -> tuple:
    before, mask, gates, kernel, of_inputs = saved

    def retreat(grad_state: jax.Array, frame: tuple) -> tuple[jax.Array, tuple]:
        grad, state, mask, (r, z, n, recurrent_n) = frame
        total = grad_state + grad
        new = jnp.where(mask[:, None], total, 0.0)
        grad_n = new * (1 - z) * (1 - n * n)
        grad_z = new * (state - n) * z * (1 - z)
        grad_r = grad_n * recurrent_n * r * (1 - r)
        to_recurrent = jnp.concatenate([grad_r, grad_z, grad_n * r], axis=-1)
        through = jnp.dot(
            to_recurrent.astype(kernel.dtype), kernel.T, preferred_element_type=jnp.float32
        )
        return total - new + new * z + through, (to_recurrent, grad_n)

    grad_initial, (to_recurrent, grad_n) = jax.lax.scan(
        retreat, jnp.zeros_like(before[0]), (grad, before, mask, gates), reverse=not reverse
    )
    d = before.shape[-1]
    to_inputs = jnp.concatenate([to_recurrent[..., : 2 * d], grad_n], axis=-1)
    states, sent = (array.astype(kernel.dtype) for array in (before, to_recurrent))
    grad_kernel = jnp.einsum("tbd,tbk->dk", states, sent, preferred_element_type=jnp.float32)
    return (
        to_inputs.astype(of_inputs.dtype),
        None,
        grad_kernel.astype(kernel.dtype),
        to_recurrent.sum(axis=(0, 1)),
        grad_initial,
    )


recur = jax.custom_vjp(_recur, nondiff_argnums=(5,))
recur.defvjp(_recur_forward, _recur_backward)


class Recurrence(nnx.Module):
    """One direction of one layer: its inputs' and its recurrent weights, a bias for each.

    Orthogonal recurrent weights, uniform biases and inputs of Glorot and Bengio 2010, as in the
    official baseline of Brain-to-Text '25.
    """

    def __init__(self, inputs: int, d: int, *, reverse: bool, dtype: Any, rngs: nnx.Rngs):
        self.reverse, self.dtype = reverse, dtype
        near_zero = _uniform(1 / math.sqrt(d))
        self.input = nnx.Linear(
            inputs,
            3 * d,
            kernel_init=nnx.initializers.xavier_uniform(),
            bias_init=near_zero,
            dtype=dtype,
            rngs=rngs,
        )
        self.recurrent = nnx.Param(nnx.initializers.orthogonal()(rngs.params(), (d, 3 * d)))
        self.recurrent_bias = nnx.Param(near_zero(rngs.params(), (3 * d,)))

    def __call__(
        self, x: Sequence, state: Float[Array, "batch d"]
    ) -> tuple[Float[Array, "batch d"], Float[Array, "batch time d"]]:
        """The states after the last and after each frame of `x`, whose padding is zero."""
        inputs, mask = x.values.swapaxes(0, 1), x.mask.swapaxes(0, 1)
        kernel = self.recurrent[...].astype(self.dtype)
        states = recur(
            self.input(inputs), mask, kernel, self.recurrent_bias[...], state, self.reverse
        )
        return states[0 if self.reverse else -1], states.swapaxes(0, 1).astype(self.dtype)


class GRU(nnx.Module):
    """Layers of gated recurrent units, with dropout between them, in one or two directions.

    All layers begin with one learned state. In one direction they stream, frame by frame.
    """

    def __init__(
        self,
        inputs: int,
        d: int,
        *,
        layers: int,
        rate: float,
        bidirectional: bool,
        remat: str = "none",
        dtype: Any,
        rngs: nnx.Rngs,
    ):
        if layers < 1:
            raise ValueError(f"layers = {layers}: give at least 1")
        directions = 1 + bidirectional
        self.initial = nnx.Param(_uniform(math.sqrt(3 / d))(rngs.params(), (d,)))
        self.layers = nnx.List(
            nnx.List(
                Recurrence(
                    directions * d if layer else inputs,
                    d,
                    reverse=reverse,
                    dtype=dtype,
                    rngs=rngs,
                )
                for reverse in (False, True)[:directions]
            )
            for layer in range(layers)
        )
        self.dropout, self.remat = FrameDropout(rate), remat

    def initial_state(self, batch: int) -> tuple[Float[Array, "batch d"], ...]:
        """The float32 state of each layer before the first frame."""
        # An array for each: a step may be given its state's memory to write to.
        return tuple(jnp.tile(self.initial[...], (batch, 1)) for _ in self.layers)

    def run(
        self, states: tuple[Float[Array, "batch d"], ...], x: Sequence, key: jax.Array | None
    ) -> tuple[tuple[Float[Array, "batch d"], ...], Sequence]:
        """The states after the frames of `x`, and the last layer's output after each of them."""
        new = []
        keys = split(key, len(self.layers))
        x = x.masked()
        for layer, state, layer_key in zip(self.layers, states, keys, strict=True):
            if new:
                x = x.with_values(self.dropout(x.values, layer_key))
            end, x = rematerialised(partial(_run_layer, layer), self.remat)(x, state)
            new.append(end)
        return tuple(new), x.masked()


def _run_layer(
    layer: Iterable[Recurrence], x: Sequence, state: Float[Array, "batch d"]
) -> tuple[Float[Array, "batch d"], Sequence]:
    ends, outputs = zip(*(direction(x, state) for direction in layer), strict=True)
    return ends[0], x.with_values(jnp.concatenate(outputs, axis=-1))


def _uniform(bound: float) -> Any:
    def init(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32, **_: Any) -> Any:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init
