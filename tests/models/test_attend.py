"""Attention example by example equals JAX's own, in values and gradients."""

import jax
import jax.numpy as jnp
import numpy as np

from modessm_jax.models import attend


def inputs() -> tuple[jax.Array, jax.Array, jax.Array, jax.Array, jax.Array]:
    keys = jax.random.split(jax.random.key(0), 4)
    query = jax.random.normal(keys[0], (3, 4, 2, 5))
    key, value = (jax.random.normal(k, (3, 6, 2, 5)) for k in keys[1:3])
    bias = jax.random.normal(keys[3], (2, 4, 6)).at[:, 1, 2].set(attend.MASKED)
    visible = jnp.arange(6)[None, :] < jnp.asarray([6, 3, 1])[:, None]
    return query, key, value, bias, visible


def test_forms_agree() -> None:
    *arrays, visible = inputs()

    def value_and_grads(form):
        def scalar(*arrays):
            return jnp.sum(jnp.sin(form(*arrays, visible)))

        return jax.value_and_grad(scalar, argnums=(0, 1, 2, 3))(*arrays)

    ours, theirs = value_and_grads(attend._by_example), value_and_grads(attend._at_once)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), ours, theirs)


def test_equals_the_definition() -> None:
    query, key, value, bias, visible = (np.asarray(x, np.float64) for x in inputs())
    scores = np.einsum("bqhw,bkhw->bhqk", query, key) / 5**0.5 + bias
    scores = np.where(visible[:, None, None, :] > 0, scores, -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    want = np.einsum("bhqk,bkhw->bqhw", weights, value)
    np.testing.assert_allclose(attend.attend(*inputs()), want, atol=1e-5)


def test_nothing_visible_is_finite() -> None:
    query, key, value, bias, visible = inputs()
    assert jnp.isfinite(attend.attend(query, key, value, bias, jnp.zeros_like(visible))).all()
