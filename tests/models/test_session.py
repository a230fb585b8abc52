"""A session's parameters act on that session alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from modessm_jax.models.session import SessionAdaptation
from modessm_jax.sequence import Sequence


@pytest.mark.parametrize("kind", ["affine", "layernorm"])
def test_sessions_are_apart(kind: str) -> None:
    module = SessionAdaptation(kind, channels=3, sessions=3, dtype=jnp.float32)
    graph, params = nnx.split(module, nnx.Param)
    x = Sequence(jax.random.normal(jax.random.key(0), (2, 4, 3)), jnp.ones((2, 4), bool))

    def scalar(params):
        return jnp.sum(jnp.sin(nnx.merge(graph, params)(x, jnp.asarray([0, 2])).values))

    for leaf in jax.tree.leaves(jax.grad(scalar)(params)):
        moved = np.abs(leaf).reshape(3, -1).max(axis=1) > 0
        assert moved.tolist() == [True, False, True]


def test_affine_starts_as_the_identity() -> None:
    module = SessionAdaptation("affine", channels=3, sessions=2, dtype=jnp.float32)
    x = Sequence(jax.random.normal(jax.random.key(0), (2, 4, 3)), jnp.ones((2, 4), bool))
    np.testing.assert_array_equal(module(x, jnp.asarray([1, 0])).values, x.values)


@pytest.mark.parametrize("given", [jnp.float32, jnp.bfloat16])
def test_layernorm_is_standard_in_half_precision(given) -> None:
    """A frame far from zero for its spread, as smoothed features may be."""
    module = SessionAdaptation("layernorm", channels=64, sessions=1, dtype=jnp.bfloat16)
    values = (5 + 0.2 * jax.random.normal(jax.random.key(0), (2, 3, 64))).astype(given)
    found = module(Sequence(values, jnp.ones((2, 3), bool)), jnp.asarray([0, 0])).values
    assert found.dtype == jnp.bfloat16
    exact = np.asarray(values, np.float64)
    exact = (exact - exact.mean(-1, keepdims=True)) / np.sqrt(exact.var(-1, keepdims=True) + 1e-5)
    np.testing.assert_allclose(found.astype(jnp.float32), exact, rtol=2**-8, atol=1e-3)


def test_unknown_kind() -> None:
    with pytest.raises(ValueError, match="choose 'affine'"):
        SessionAdaptation("matrix", channels=3, sessions=2, dtype=jnp.float32)
