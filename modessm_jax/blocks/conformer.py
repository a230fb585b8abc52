"""The Conformer block (Gulati et al. 2020), with relative positions and without BatchNorm."""

from typing import Any

import jax
from flax import nnx

from modessm_jax.blocks.attention import RelativeAttention
from modessm_jax.blocks.block import Block, Dropout, DropPath, split
from modessm_jax.blocks.convolution import DepthwiseConv
from modessm_jax.sequence import Sequence


class FeedForward(nnx.Module):
    """LayerNorm, expand, SiLU, contract."""

    def __init__(self, d: int, ff: int, *, rate: float, dtype: Any, rngs: nnx.Rngs):
        self.norm = nnx.LayerNorm(d, dtype=dtype, rngs=rngs)
        self.expand = nnx.Linear(d, ff, dtype=dtype, rngs=rngs)
        self.contract = nnx.Linear(ff, d, dtype=dtype, rngs=rngs)
        self.dropout = Dropout(rate)

    def __call__(self, values: jax.Array, key: jax.Array | None) -> jax.Array:
        hidden = jax.nn.silu(self.expand(self.norm(values)))
        return self.contract(self.dropout(hidden, key))


class ConformerBlock(Block):
    """Half feed-forward, self-attention, convolution, half feed-forward, final LayerNorm.

    The convolution module normalises by LayerNorm: batch statistics would depend on padding and on
    neighbours in the batch. With `chunk` (frames) the block streams: attention in chunks with
    `left` frames of past, causal convolution. `rate` and `drop_path` are the probabilities of
    `Dropout` and `DropPath` in training.
    """

    def __init__(
        self,
        d: int,
        *,
        heads: int,
        ff: int,
        kernel: int,
        rate: float,
        drop_path: float,
        chunk: int | None,
        left: int,
        dtype: Any,
        rngs: nnx.Rngs,
    ):
        causal = chunk is not None
        self.block_size = chunk or 1
        self.back = left + -(-(kernel - 1) // self.block_size) * self.block_size if causal else None
        self.ahead = 0 if causal else None
        self.first = FeedForward(d, ff, rate=rate, dtype=dtype, rngs=rngs)
        self.attention_norm = nnx.LayerNorm(d, dtype=dtype, rngs=rngs)
        self.attention = RelativeAttention(d, heads, chunk=chunk, left=left, dtype=dtype, rngs=rngs)
        self.conv_norm = nnx.LayerNorm(d, dtype=dtype, rngs=rngs)
        self.gate = nnx.Linear(d, 2 * d, dtype=dtype, rngs=rngs)
        self.conv = DepthwiseConv(d, kernel, causal=causal, dtype=dtype, rngs=rngs)
        self.filtered_norm = nnx.LayerNorm(d, dtype=dtype, rngs=rngs)
        self.conv_out = nnx.Linear(d, d, dtype=dtype, rngs=rngs)
        self.second = FeedForward(d, ff, rate=rate, dtype=dtype, rngs=rngs)
        self.final_norm = nnx.LayerNorm(d, dtype=dtype, rngs=rngs)
        self.dropout = Dropout(rate)
        self.drop_path = DropPath(drop_path)

    def __call__(self, x: Sequence, *, key: jax.Array | None = None) -> Sequence:
        return self._run((None, None), x, key)[1]

    def initial_state(self, batch: int) -> Any:
        return self.attention.initial_state(batch), self.conv.initial_state(batch)

    def step(self, state: Any, x: Sequence) -> tuple[Any, Sequence]:
        self.check_step(x)
        return self._run(state, x, None)

    def _run(self, state: Any, x: Sequence, key: jax.Array | None) -> tuple[Any, Sequence]:
        keys = split(key, 10)
        x = x.masked()
        h = x.values
        h = self._add(h, 0.5 * self.first(h, keys[0]), keys[1], keys[2])

        normed = x.with_values(self.attention_norm(h))
        attention_state, attended = self.attention.run(state[0], normed, normed)
        h = self._add(h, attended, keys[3], keys[4])

        gated = x.with_values(nnx.glu(self.gate(self.conv_norm(h))))
        conv_state, filtered = self.conv.run(state[1], gated)
        branch = self.conv_out(jax.nn.silu(self.filtered_norm(filtered.values)))
        h = self._add(h, branch, keys[5], keys[6])

        h = self._add(h, 0.5 * self.second(h, keys[7]), keys[8], keys[9])
        return (attention_state, conv_state), x.with_values(self.final_norm(h))

    def _add(
        self, h: jax.Array, branch: jax.Array, key: jax.Array | None, path_key: jax.Array | None
    ) -> jax.Array:
        return h + self.drop_path(self.dropout(branch, key), path_key)
