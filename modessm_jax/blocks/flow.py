"""The flow bridge: denoises features of corrupted input by flow matching."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Key

from modessm_jax.blocks.block import Block
from modessm_jax.blocks.convolution import DepthwiseConv
from modessm_jax.sequence import Sequence

EULER_STEPS = 4
FREQUENCIES = 2 * np.pi * np.geomspace(0.25, 8.0, 8)  # per unit of flow time


class FlowLayer(nnx.Module):
    """LayerNorm, scale and shift by the time, depthwise convolution, SiLU, linear, residual."""

    def __init__(self, d: int, kernel: int, *, causal: bool, dtype: Any, rngs: nnx.Rngs):
        self.norm = nnx.LayerNorm(d, dtype=dtype, rngs=rngs)
        self.modulate = nnx.Linear(d, 2 * d, dtype=dtype, rngs=rngs)
        self.conv = DepthwiseConv(d, kernel, causal=causal, dtype=dtype, rngs=rngs)
        self.out = nnx.Linear(d, d, dtype=dtype, rngs=rngs)

    def __call__(self, state: Any, x: Sequence, time: jax.Array) -> tuple[Any, Sequence]:
        """Frames of a whole trial if `state` is `None`, else the next frames of a stream."""
        scale, shift = jnp.split(self.modulate(time)[:, None, :], 2, axis=-1)
        normed = x.with_values(self.norm(x.values) * (1 + scale) + shift)
        state, filtered = self.conv.run(state, normed)
        return state, x.with_values(x.values + self.out(jax.nn.silu(filtered.values)))


class FlowBridge(Block):
    """`EULER_STEPS` steps along a learned velocity, from features of corrupted input to clean ones.

    Conditional flow matching (Lipman et al. 2023) between paired points: `x_t = (1 - t) h0 + t h1`,
    and a network learns the velocity `h1 - h0` from `x_t`, `t` and `h0`. Both features go in
    through LayerNorm, the time as sines through two layers, and `layers` residual convolutions of
    `kernel` frames follow. A causal bridge keeps the window of each convolution for each Euler
    step.

    The output layer starts at zero, so that the bridge starts as the identity. The first update
    therefore changes that layer alone; from the second on every parameter has a gradient.
    """

    def __init__(
        self, d: int, *, layers: int, kernel: int, causal: bool, dtype: Any, rngs: nnx.Rngs
    ):
        if layers < 1:
            raise ValueError(f"flow is {layers}: the bridge needs at least one layer")
        self.dtype = dtype
        self.point_norm = nnx.LayerNorm(d, dtype=dtype, rngs=rngs)
        self.start_norm = nnx.LayerNorm(d, dtype=dtype, rngs=rngs)
        self.enter = nnx.Linear(2 * d, d, dtype=dtype, rngs=rngs)
        self.time_in = nnx.Linear(2 * len(FREQUENCIES), d, dtype=dtype, rngs=rngs)
        self.time_out = nnx.Linear(d, d, dtype=dtype, rngs=rngs)
        self.layers = nnx.List(
            [FlowLayer(d, kernel, causal=causal, dtype=dtype, rngs=rngs) for _ in range(layers)]
        )
        self.norm = nnx.LayerNorm(d, dtype=dtype, rngs=rngs)
        # Float32 throughout, for small steps would be lost in half precision.
        self.out = nnx.Linear(d, d, kernel_init=nnx.initializers.zeros_init(), rngs=rngs)
        self.back, self.ahead = (EULER_STEPS * layers * x for x in self.layers[0].conv.margins)

    def __call__(self, x: Sequence, *, key: jax.Array | None = None) -> Sequence:
        return self._carry((None,) * len(self.layers), x)[1]

    def initial_state(self, batch: int) -> Any:
        """For each layer the windows of all Euler steps, `[batch, EULER_STEPS, frames, d]`."""
        windows = tuple(layer.conv.initial_state(batch) for layer in self.layers)
        return jax.tree.map(lambda x: jnp.repeat(x[:, None], EULER_STEPS, axis=1), windows)

    def step(self, state: Any, x: Sequence) -> tuple[Any, Sequence]:
        self.check_step(x)
        return self._carry(state, x)

    def velocity(self, x_t: Sequence, t: Float[Array, "batch"], h0: Sequence) -> Sequence:
        """The velocity of the features at `x_t` at time `t` (0: corrupted, 1: clean), float32.

        Args:
            x_t: points on the path, `[batch, frames, d]`.
            t: the flow time of each example.
            h0: the start of the path; frames as in `x_t`.
        """
        return self._velocity((None,) * len(self.layers), x_t.masked(), t, h0.masked())[1]

    def training_pair(
        self, h0: Sequence, h1: Sequence, key: Key[Array, ""]
    ) -> tuple[Sequence, Sequence]:
        """The velocity at a random time of each example, and the true one.

        No gradient passes to `h0` and `h1`: features that could move would collapse to one point,
        where the velocity is easy to predict.

        Args:
            h0: features of the corrupted input, `[batch, frames, d]`.
            h1: features of the clean input, frame by frame of the same time.
            key: draws the times, uniform between 0 and 1.

        Returns:
            Predicted and true velocity, on the frames real in both.
        """
        mask = h0.mask & h1.mask
        start, end = (
            jax.lax.stop_gradient(Sequence(x.values, mask).masked().values.astype(jnp.float32))
            for x in (h0, h1)
        )
        t = jax.random.uniform(key, (mask.shape[0],))
        point = start + t[:, None, None] * (end - start)
        predicted = self.velocity(Sequence(point, mask), t, Sequence(start, mask))
        return predicted, Sequence(end - start, mask)

    def _carry(self, states: Any, h0: Sequence) -> tuple[Any, Sequence]:
        h0 = h0.masked()

        def advance(values: jax.Array, given: Any) -> tuple[jax.Array, Any]:
            t, state = given
            times = jnp.broadcast_to(t, h0.mask.shape[:1])
            state, velocity = self._velocity(state, h0.with_values(values), times, h0)
            return values + velocity.values / EULER_STEPS, state

        steps = jax.tree.map(lambda window: jnp.moveaxis(window, 1, 0), states)
        given = jnp.arange(EULER_STEPS) / EULER_STEPS, steps
        values, steps = jax.lax.scan(advance, h0.values.astype(jnp.float32), given)
        states = jax.tree.map(lambda window: jnp.moveaxis(window, 0, 1), steps)
        return states, h0.with_values(values.astype(h0.values.dtype))

    def _velocity(
        self, states: Any, x_t: Sequence, t: jax.Array, h0: Sequence
    ) -> tuple[Any, Sequence]:
        angles = t[:, None] * jnp.asarray(FREQUENCIES, jnp.float32)[None, :]
        waves = jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)
        time = jax.nn.silu(self.time_out(jax.nn.silu(self.time_in(waves))))
        both = [self.point_norm(x_t.values), self.start_norm(h0.values)]
        x, kept = x_t.with_values(self.enter(jnp.concatenate(both, axis=-1))), []
        for layer, state in zip(self.layers, states, strict=True):
            state, x = layer(state, x, time)
            kept.append(state)
        return tuple(kept), x.with_values(self.out(self.norm(x.values)))
