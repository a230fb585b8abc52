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


def test_half_precision_is_rounded_once() -> None:
    *arrays, visible = inputs()
    half = [array.astype(jnp.bfloat16) for array in arrays]
    full = [array.astype(jnp.float32) for array in half]

    def form(query, key, value, bias):
        return attend._by_example(query, key, value, bias, visible)

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
    np.testing.assert_allclose(attend.attend(*inputs()), want, atol=1e-5)


def test_nothing_visible_is_finite() -> None:
    query, key, value, bias, visible = inputs()
    assert jnp.isfinite(attend.attend(query, key, value, bias, jnp.zeros_like(visible))).all()
