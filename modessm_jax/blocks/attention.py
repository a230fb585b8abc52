"""Multi-head attention with a learned bias for relative position, over all frames or in chunks.

On CPU the scores of a whole batch are far larger than the caches, and moving them costs several
times what computing them does. There, one example is attended at a time and recomputed in the
backward pass; accelerators get JAX's own attention over the whole batch.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx, struct
from jaxtyping import Array, Bool, Float, Int

from modessm_jax.blocks.block import require_whole_steps
from modessm_jax.sequence import Sequence

MASKED = -1e9  # finite, so that a query without visible keys yields numbers, not NaN
BUCKETS = 32
MAX_DISTANCE = 128  # frames


def attend(
    query: Float[Array, "batch queries heads width"],
    key: Float[Array, "batch keys heads width"],
    value: Float[Array, "batch keys heads width"],
    bias: Float[Array, "heads queries keys"],
    visible: Bool[Array, "batch keys"],
) -> Float[Array, "batch queries heads width"]:
    """`softmax(query key^T / sqrt(width) + bias) value` over the visible keys.

    Scores and softmax are float32 at least, also where the arguments are of half precision. A bias
    of `MASKED` hides a key from a query. Without visible keys the result is undefined but finite.
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


def relative_buckets(distance: Int[np.ndarray, "..."]) -> Int[np.ndarray, "..."]:
    """Buckets of relative positions (key minus query, in frames), from 0 to `BUCKETS` - 1.

    Near positions have one bucket each, far ones share logarithmic buckets (Raffel et al. 2020, T5,
    bidirectional). Half of the buckets are for keys after the query.
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
        return spread(diagonals, queries)[:, :, :keys]


def spread(
    diagonals: Float[Array, "heads distances"], queries: int
) -> Float[Array, "heads queries keys"]:
    """Entry (q, k) is `diagonals[k - q + queries - 1]`; some keys at the end mean nothing.

    Reading rows of one element fewer out of a repeated array shifts each row by one more, with no
    gather whose gradient is a scatter.
    """
    heads, length = diagonals.shape
    rows = jnp.broadcast_to(diagonals[:, None, :], (heads, queries, length))
    flat = rows.reshape(heads, queries * length)[:, queries - 1 :]
    return flat[:, : queries * (length - 1)].reshape(heads, queries, length - 1)


@struct.dataclass
class Memory:
    """Keys, values and mask of the past frames that a stream still attends to."""

    keys: Any  # [batch, frames, heads, d / heads]
    values: Any
    mask: Any  # [batch, frames]


class RelativeAttention(nnx.Module):
    """Attention from one sequence to another of the same frame rate (or to itself).

    With `chunk` frames, a query attends to its own chunk and the `left` frames before that chunk,
    so a stream waits for a chunk at most and keeps `left` frames. Without, it attends to all.
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

    def initial_state(self, batch: int) -> Memory:
        """An empty past of `left` frames."""
        shape = (batch, self.left, self.heads, self.width)
        # Two arrays, not one twice: a step may be given its state's memory to write to.
        keys, values = (jnp.zeros(shape, self.dtype) for _ in range(2))
        return Memory(keys, values, jnp.zeros((batch, self.left), bool))

    def run(
        self, state: Memory | None, x: Sequence, memory: Sequence
    ) -> tuple[Memory | None, Float[Array, "batch time d"]]:
        """Attends from the frames of `x` to the real frames of `memory`, frames of the same time.

        Args:
            state: of a stream, whose next chunks these frames are; None for whole sequences.
            x: the queries.
            memory: the keys and values.

        Raises:
            ValueError: the frames of a stream do not fill whole chunks.
        """
        heads = (*memory.mask.shape, self.heads, self.width)
        keys, values = (project(memory.values) for project in (self.key, self.value))
        context, offset = Memory(keys.reshape(heads), values.reshape(heads), memory.mask), 0
        queries = x.mask.shape[1]
        if state is not None:
            require_whole_steps(x, self.chunk or 1)
            context = jax.tree.map(lambda *parts: jnp.concatenate(parts, axis=1), state, context)
            state = jax.tree.map(lambda frames: frames[:, queries:], context)
            offset = -self.left
        sizes = queries, context.mask.shape[1], offset
        bias = self.bias(*sizes).astype(self.dtype)
        if self.chunk is not None:
            visible = jnp.asarray(self._visible(*sizes))
            bias = jnp.where(visible[None], bias, jnp.asarray(MASKED, bias.dtype))
        query = self.query(x.values).reshape(*x.mask.shape, self.heads, self.width)
        attended = attend(query, context.keys, context.values, bias, context.mask)
        return state, self.out(attended.reshape(x.values.shape))

    def _visible(self, queries: int, keys: int, offset: int) -> Bool[np.ndarray, "queries keys"]:
        assert self.chunk is not None
        start = (np.arange(queries) // self.chunk * self.chunk)[:, None]
        position = (np.arange(keys) + offset)[None, :]
        return (position >= start - self.left) & (position < start + self.chunk)
