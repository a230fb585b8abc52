"""Attention against its definition and JAX's own; T5's buckets; a bias of the distance alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from modessm_jax.blocks import attention
from modessm_jax.blocks.attention import (
    BUCKETS,
    MAX_DISTANCE,
    RelativeAttention,
    RelativeBias,
    relative_buckets,
)


def inputs() -> tuple[jax.Array, jax.Array, jax.Array, jax.Array, jax.Array]:
    keys = jax.random.split(jax.random.key(0), 4)
    query = jax.random.normal(keys[0], (3, 4, 2, 5))
    key, value = (jax.random.normal(k, (3, 6, 2, 5)) for k in keys[1:3])
    bias = jax.random.normal(keys[3], (2, 4, 6)).at[:, 1, 2].set(attention.MASKED)
    visible = jnp.arange(6)[None, :] < jnp.asarray([6, 3, 1])[:, None]
    return query, key, value, bias, visible


def test_forms_agree() -> None:
    *arrays, visible = inputs()

    def value_and_grads(form):
        def scalar(*arrays):
            return jnp.sum(jnp.sin(form(*arrays, visible)))

        return jax.value_and_grad(scalar, argnums=(0, 1, 2, 3))(*arrays)

    ours, theirs = value_and_grads(attention._by_example), value_and_grads(attention._at_once)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), ours, theirs)


def test_half_precision_is_rounded_once() -> None:
    *arrays, visible = inputs()
    half = [array.astype(jnp.bfloat16) for array in arrays]
    full = [array.astype(jnp.float32) for array in half]

    def form(query, key, value, bias):
        return attention._by_example(query, key, value, bias, visible)

    (found, pull), (exact, pull_exact) = (jax.vjp(form, *given) for given in (half, full))
    weights = jnp.sign(exact)  # which half precision holds as they are
    grads = pull(weights.astype(jnp.bfloat16)), pull_exact(weights)
    for a, b in zip((found, *grads[0]), (exact, *grads[1]), strict=True):
        assert a.dtype == jnp.bfloat16
        np.testing.assert_allclose(a.astype(jnp.float32), b, rtol=2**-8, atol=1e-5)


def test_equals_the_definition() -> None:
    query, key, value, bias, visible = (np.asarray(x, np.float64) for x in inputs())
    scores = np.einsum("bqhw,bkhw->bhqk", query, key) / 5**0.5 + bias
    scores = np.where(visible[:, None, None, :] > 0, scores, -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    want = np.einsum("bhqk,bkhw->bqhw", weights, value)
    np.testing.assert_allclose(attention.attend(*inputs()), want, atol=1e-5)


def test_nothing_visible_is_finite() -> None:
    query, key, value, bias, visible = inputs()
    assert jnp.isfinite(attention.attend(query, key, value, bias, jnp.zeros_like(visible))).all()


def test_buckets_are_exact_near_and_monotone_far() -> None:
    near = relative_buckets(np.arange(-7, 8))
    assert len(set(near.tolist())) == 15, "near distances share a bucket"
    for side in (np.arange(0, 500), -np.arange(1, 500)):
        found = relative_buckets(side)
        assert (np.diff(found[1:]) >= 0).all()
        assert found.min() >= 0 and found.max() < BUCKETS
    assert relative_buckets(np.array([MAX_DISTANCE])) == relative_buckets(np.array([10_000]))
    assert relative_buckets(np.array([3])) != relative_buckets(np.array([-3]))


@pytest.mark.parametrize(("queries", "keys", "offset"), [(5, 5, 0), (1, 4, -3), (3, 7, -4)])
def test_bias_is_the_table_at_the_distance(queries: int, keys: int, offset: int) -> None:
    bias = RelativeBias(2, rngs=nnx.Rngs(0))
    table = np.asarray(bias.table[...])
    found = np.asarray(bias(queries, keys, offset))
    assert found.shape == (2, queries, keys)
    for q in range(queries):
        for k in range(keys):
            bucket = relative_buckets(np.array([k + offset - q]))[0]
            np.testing.assert_array_equal(found[:, q, k], table[bucket])


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(ValueError, match="multiple of heads"):
        RelativeAttention(6, 4, chunk=None, left=0, dtype=np.float32, rngs=nnx.Rngs(0))
