"""A pre-norm Transformer block whose attention is causal in chunks and looks back a bounded time.

As in the time-masked Transformer of Feghhi et al. 2025 ("Time-masked Transformers with lightweight
test-time adaptation for neural speech decoding"), whose relative bias is one number for each
distance, shared by all heads.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from modessm_jax.blocks.attention import MASKED, Memory, attend, spread
from modessm_jax.blocks.block import Block, FrameDropout, require_whole_steps, split
from modessm_jax.sequence import Sequence

FARTHEST = 199  # frames; farther ones share its bias
EPSILON = 1e-5  # of every LayerNorm
# Uniform within the inverse root of the inputs: a third of the variance that keeps that of the
# inputs, so that each block begins as a small addition.
KERNEL_INIT = nnx.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


class ChunkedAttention(nnx.Module):
    """Attention of a sequence to itself: each chunk to itself and to the `left` frames before it.

    Without a chunk, all frames attend to all.
    """

    def __init__(
        self, d: int, heads: int, *, chunk: int | None, left: int, dtype: Any, rngs: nnx.Rngs
    ):
        if d % heads:
            raise ValueError(f"d = {d} is not a multiple of heads = {heads}")
        self.heads, self.width, self.dtype = heads, d // heads, dtype
        self.chunk, self.left = chunk, left
        linear: Any = dict(kernel_init=KERNEL_INIT, dtype=dtype, rngs=rngs)
        self.projections = nnx.Linear(d, 3 * d, use_bias=False, **linear)
        self.out = nnx.Linear(d, d, **linear)
        # Large enough that every layer begins with weights of its own for each distance: without
        # other positions, frames that look alike could hardly be told apart.
        init = nnx.initializers.normal(1.0)
        self.distance_bias = nnx.Param(init(rngs.params(), (2 * FARTHEST + 1,)))

    def initial_state(self, batch: int) -> Memory:
        """An empty past of `left` frames."""
        shape = (batch, self.left, self.heads, self.width)
        # Two arrays, not one twice: a step may be given its state's memory to write to.
        keys, values = (jnp.zeros(shape, self.dtype) for _ in range(2))
        return Memory(keys, values, jnp.zeros((batch, self.left), bool))

    def run(
        self, state: Memory | None, x: Sequence, left: Int[Array, ""] | None
    ) -> tuple[Memory | None, Float[Array, "batch time d"]]:
        """Attends among the real frames of `x`.

        Args:
            state: of a stream, whose next chunks these frames are; None for whole sequences.
            x: whose padding is finite.
            left: frames to look back, in place of the model's.

        Raises:
            ValueError: the frames of a stream do not fill whole chunks.
        """
        shape = (*x.mask.shape, self.heads, self.width)
        query, key, value = jnp.split(self.projections(x.values), 3, axis=-1)
        context, offset = Memory(key.reshape(shape), value.reshape(shape), x.mask), 0
        queries = x.mask.shape[1]
        if state is not None:
            require_whole_steps(x, self.chunk or 1)
            context = jax.tree.map(lambda *parts: jnp.concatenate(parts, axis=1), state, context)
            state = jax.tree.map(lambda frames: frames[:, queries:], context)
            offset = -self.left
        keys = context.mask.shape[1]
        distances = np.arange(-(queries - 1), keys + 1) + offset  # key minus query, one to spare
        index = np.clip(-distances, -FARTHEST, FARTHEST) + FARTHEST
        bias = spread(self.distance_bias[...][index][None, :], queries)[:, :, :keys]
        if self.chunk is not None:
            visible = self._visible(queries, keys, offset, self.left if left is None else left)
            bias = jnp.where(visible[None], bias, MASKED)
        bias = jnp.broadcast_to(bias, (self.heads, queries, keys)).astype(self.dtype)
        attended = attend(query.reshape(shape), context.keys, context.values, bias, context.mask)
        return state, self.out(attended.reshape(x.values.shape))

    def _visible(
        self, queries: int, keys: int, offset: int, left: Any
    ) -> Bool[Array, "queries keys"]:
        assert self.chunk is not None
        start = (np.arange(queries) // self.chunk * self.chunk)[:, None]
        position = (np.arange(keys) + offset)[None, :]
        return jnp.asarray(position >= start - left) & (position < start + self.chunk)


class TransformerBlock(Block):
    """Self-attention, then a feed-forward network with GELU, each added to its normalised input.

    With `chunk` (frames) the block streams, and keeps the keys and values of `left` frames. `rate`
    is the probability of dropout in training.
    """

    def __init__(
        self,
        d: int,
        *,
        heads: int,
        ff: int,
        rate: float,
        chunk: int | None,
        left: int,
        dtype: Any,
        rngs: nnx.Rngs,
    ):
        self.block_size = chunk or 1
        self.back, self.ahead = (None, None) if chunk is None else (left, 0)
        norm: Any = dict(epsilon=EPSILON, dtype=dtype, rngs=rngs)
        self.attention_norm = nnx.LayerNorm(d, **norm)
        self.attention = ChunkedAttention(d, heads, chunk=chunk, left=left, dtype=dtype, rngs=rngs)
        self.norm = nnx.LayerNorm(d, **norm)
        linear: Any = dict(kernel_init=KERNEL_INIT, dtype=dtype, rngs=rngs)
        self.expand = nnx.Linear(d, ff, **linear)
        self.contract = nnx.Linear(ff, d, **linear)
        self.dropout = FrameDropout(rate)

    def __call__(self, x: Sequence, *, key: jax.Array | None = None) -> Sequence:
        return self.run_block(None, x, key, None)[1]

    def initial_state(self, batch: int) -> Memory:
        return self.attention.initial_state(batch)

    def step(self, state: Memory, x: Sequence) -> tuple[Any, Sequence]:
        self.check_step(x)
        return self.run_block(state, x, None, None)

    def run_block(
        self, state: Memory | None, x: Sequence, key: jax.Array | None, left: Any
    ) -> tuple[Memory | None, Sequence]:
        """The whole call if `state` is None, else a step; `left` frames to look back, if given."""
        keys = split(key, 3)
        x = x.masked()
        h = x.values
        normed = x.with_values(self.attention_norm(h))
        state, attended = self.attention.run(state, normed, left)
        h = h + self.dropout(attended, keys[0])
        hidden = jax.nn.gelu(self.expand(self.norm(h)), approximate=False)
        branch = self.contract(self.dropout(hidden, keys[1]))
        return state, x.with_values(h + self.dropout(branch, keys[2]))
