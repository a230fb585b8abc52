"""A session's parameters act on that session alone; hidden bins carry the learned vector."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from modessm_jax.models.inputs import SessionAdaptation, hide
from modessm_jax.sequence import Sequence

X = Sequence.from_lengths(jax.random.normal(jax.random.key(0), (2, 6, 3)), jnp.asarray([6, 4]))
HIDDEN = jnp.asarray([[0, 1, 1, 0, 0], [1, 0, 0, 0, 0]], bool)  # drawn before a bin was appended
VECTOR = nnx.Param(jnp.asarray([1.0, -2.0, 3.0]))


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


def test_the_vector_takes_their_place() -> None:
    found = hide(X, HIDDEN, VECTOR)
    expected = np.array(X.values)
    for row, bin_ in ((0, 1), (0, 2), (1, 0)):
        expected[row, bin_] = [1, -2, 3]
    np.testing.assert_array_equal(found.values, expected)
    np.testing.assert_array_equal(found.mask, X.mask)


def test_the_vector_learns_and_hidden_bins_do_not() -> None:
    def total(vector, values):
        return hide(X.with_values(values), HIDDEN, nnx.Param(vector)).values.sum()

    of_vector, of_values = jax.grad(total, (0, 1))(VECTOR[...], X.values)
    assert of_vector.tolist() == [3, 3, 3]
    np.testing.assert_array_equal(of_values[:, :5], jnp.broadcast_to(~HIDDEN[..., None], (2, 5, 3)))


def test_precision_is_that_of_the_features() -> None:
    half = X.with_values(X.values.astype(jnp.bfloat16))
    assert hide(half, HIDDEN, VECTOR).values.dtype == jnp.bfloat16


def test_nothing_hidden_is_nothing_done_and_a_model_without_vector_says_so() -> None:
    assert hide(X, None, None) is X
    with pytest.raises(ValueError, match="without a mask vector"):
        hide(X, HIDDEN, None)
