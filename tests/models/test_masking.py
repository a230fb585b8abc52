"""Hidden bins carry the learned vector, and nothing else changes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from modessm_jax.models.masking import hide
from modessm_jax.sequence import Sequence

X = Sequence.from_lengths(jax.random.normal(jax.random.key(0), (2, 6, 3)), jnp.asarray([6, 4]))
HIDDEN = jnp.asarray([[0, 1, 1, 0, 0], [1, 0, 0, 0, 0]], bool)  # drawn before a bin was appended
VECTOR = nnx.Param(jnp.asarray([1.0, -2.0, 3.0]))


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
