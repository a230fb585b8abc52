"""Scaled dot-product attention with a bias, laid out for the memory of each backend.

On CPU the scores of a whole batch are far larger than the caches, and moving them costs several
times what computing them does. There, one example is attended at a time and recomputed in the
backward pass; accelerators get JAX's own attention over the whole batch.

Multi-head attention with a learned bias for relative position, whole or in chunks.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx, struct
from jaxtyping import Array, Bool, Float, Int

from modessm_jax.models.block import require_whole_steps
from modessm_jax.sequence import Sequence

MASKED = -1e9  # finite, so that a query that sees nothing yields numbers, not NaN


def attend(
    query: Float[Array, "batch queries heads width"],
    key: Float[Array, "batch keys heads width"],
    value: Float[Array, "batch keys heads width"],
    bias: Float[Array, "heads queries keys"],
    visible: Bool[Array, "batch keys"],
) -> Float[Array, "batch queries heads width"]:
    """`softmax(query key^T / sqrt(width) + bias) value` over the visible keys.

    Scores and softmax are float32 at least, also where the arguments are of half precision.

    A bias of `MASKED` hides a key from a query. What a query that sees nothing gets is undefined
    but finite.
    """
    return jax.lax.platform_dependent(
        query, key, value, bias, visible, cpu=_by_example, default=_at_once
    )


def _at_once(
    query: jax.Array, key: jax.Array, value: jax.Array, bias: jax.Array, visible: jax.Array
) -> jax.Array:
    mask = visible[:, None, None, :]
    return jax.nn.dot_product_attention(query, key, value, bias=bias[None], mask=mask)


def _by_example(
    query: jax.Array, key: jax.Array, value: jax.Array, bias: jax.Array, visible: jax.Array
) -> jax.Array:
    scale = query.shape[-1] ** -0.5
    exact = jnp.promote_types(query.dtype, jnp.float32)
    bias = bias.astype(exact)

    @jax.checkpoint
    def one(example: tuple[jax.Array, jax.Array, jax.Array, jax.Array]) -> jax.Array:
        *arrays, visible = example
        query, key, value = (array.astype(exact) for array in arrays)
        scores = jnp.einsum("qhw,khw->hqk", query * scale, key) + bias
        scores = jnp.where(visible[None, None, :], scores, MASKED)
        weights = jax.nn.softmax(scores, axis=-1)
        return jnp.einsum("hqk,khw->qhw", weights, value).astype(arrays[2].dtype)

    return jax.lax.map(one, (query, key, value, visible))


BUCKETS = 32
MAX_DISTANCE = 128


def relative_buckets(distance: Int[np.ndarray, "..."]) -> Int[np.ndarray, "..."]:
    """Buckets of relative positions (key minus query): near ones exact, far ones logarithmic.

    Raffel et al. 2020 (T5), bidirectional: half of the `BUCKETS` for keys after the query.
    """
    half = BUCKETS // 2
    exact = half // 2
    size = np.abs(distance)
    scale = np.log(np.maximum(size, 1) / exact) / np.log(MAX_DISTANCE / exact)
    far = exact + (scale * (half - exact)).astype(np.int32)
    return np.where(size < exact, size, np.minimum(far, half - 1)) + half * (distance > 0)


class RelativeBias(nnx.Module):
    """One learned number for each head and relative-position bucket, added to the logits."""

    def __init__(self, heads: int, *, rngs: nnx.Rngs):
        self.table = nnx.Param(nnx.initializers.normal(0.02)(rngs.params(), (BUCKETS, heads)))

    def __call__(self, queries: int, keys: int, offset: int) -> Float[Array, "heads queries keys"]:
        """The bias when key 0 stands `offset` frames after query 0."""
        distances = np.arange(-(queries - 1), keys + 1) + offset  # one to spare for the shift
        diagonals = self.table[...][relative_buckets(distances)].T
        # Entry (q, k) is diagonals[k - q + queries - 1]; reading rows of one element fewer out of
        # a repeated array shifts each row by one more, with no gather whose gradient is a scatter.
        heads, length = diagonals.shape
        rows = jnp.broadcast_to(diagonals[:, None, :], (heads, queries, length))
        flat = rows.reshape(heads, queries * length)[:, queries - 1 :]
        bias = flat[:, : queries * (length - 1)].reshape(heads, queries, length - 1)
        return bias[:, :, :keys]


@struct.dataclass
class Memory:
    """Keys, values and mask of the frames a stream may still look back on."""

    keys: Any  # [batch, frames, heads, d / heads]
    values: Any
    mask: Any  # [batch, frames]


class RelativeAttention(nnx.Module):
    """Attention from one sequence to another of the same frame rate (or to itself).

    With `chunk` frames, a query sees its own chunk and the `left` frames before that chunk, so a
    stream waits for a chunk at most and keeps `left` frames; without, it sees everything.
    """

    def __init__(
        self, d: int, heads: int, *, chunk: int | None, left: int, dtype: Any, rngs: nnx.Rngs
    ):
        if d % heads:
            raise ValueError(f"d = {d} is not a multiple of heads = {heads}")
        self.heads, self.width, self.dtype = heads, d // heads, dtype
        self.chunk, self.left = chunk, left
        self.query = nnx.Linear(d, d, dtype=dtype, rngs=rngs)
        self.key = nnx.Linear(d, d, use_bias=False, dtype=dtype, rngs=rngs)
        self.value = nnx.Linear(d, d, dtype=dtype, rngs=rngs)
        self.out = nnx.Linear(d, d, dtype=dtype, rngs=rngs)
        self.bias = RelativeBias(heads, rngs=rngs)

    def __call__(self, x: Sequence, memory: Sequence) -> Float[Array, "batch time d"]:
        """Attends from the frames of `x` to the real frames of `memory`."""
        past = self.initial_state(x.mask.shape[0], frames=0)
        return self._attend(x, self._extend(past, memory), offset=0)

    def initial_state(self, batch: int, frames: int | None = None) -> Memory:
        """An empty past of `left` frames."""
        frames = self.left if frames is None else frames
        empty = jnp.zeros((batch, frames, self.heads, self.width), self.dtype)
        return Memory(empty, empty, jnp.zeros((batch, frames), bool))

    def step(
        self, state: Memory, x: Sequence, memory: Sequence
    ) -> tuple[Memory, Float[Array, "batch time d"]]:
        """Attends from the next whole chunks of `x` to those of `memory` and the past.

        Raises:
            ValueError: the frames do not fill whole chunks.
        """
        require_whole_steps(x, self.chunk or 1)
        new = x.mask.shape[1]
        state = self._extend(state, memory)
        out = self._attend(x, state, offset=-self.left)
        return jax.tree.map(lambda frames: frames[:, new:], state), out

    def _extend(self, past: Memory, x: Sequence) -> Memory:
        keys, values = self._heads(self.key(x.values)), self._heads(self.value(x.values))
        new = Memory(keys, values, x.mask)
        return jax.tree.map(lambda old, fresh: jnp.concatenate([old, fresh], axis=1), past, new)

    def _heads(
        self, values: Float[Array, "batch time d"]
    ) -> Float[Array, "batch time heads width"]:
        return values.reshape(*values.shape[:2], self.heads, self.width)

    def _attend(self, x: Sequence, memory: Memory, offset: int) -> Float[Array, "batch time d"]:
        queries, keys = x.mask.shape[1], memory.mask.shape[1]
        bias = self.bias(queries, keys, offset).astype(self.dtype)
        if self.chunk is not None:
            visible = jnp.asarray(self._visible(queries, keys, offset))
            bias = jnp.where(visible[None], bias, jnp.asarray(MASKED, bias.dtype))
        query = self._heads(self.query(x.values))
        attended = attend(query, memory.keys, memory.values, bias, memory.mask)
        return self.out(attended.reshape(x.values.shape))

    def _visible(self, queries: int, keys: int, offset: int) -> Bool[np.ndarray, "queries keys"]:
        assert self.chunk is not None
        start = (np.arange(queries) // self.chunk * self.chunk)[:, None]
        position = (np.arange(keys) + offset)[None, :]
        return (position >= start - self.left) & (position < start + self.chunk)
