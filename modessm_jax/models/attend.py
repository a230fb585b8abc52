"""Scaled dot-product attention with a bias, laid out for the memory of each backend.

On CPU the scores of a whole batch are far larger than the caches, and moving them costs several
times what computing them does. There, one example is attended at a time and recomputed in the
backward pass; accelerators get JAX's own attention over the whole batch.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

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
