"""Padding never survives, whatever stands in it."""

import jax
import jax.numpy as jnp

from modessm_jax.sequence import Sequence


def example() -> Sequence:
    values = jnp.asarray([[[1.0], [2.0], [jnp.nan]], [[3.0], [jnp.inf], [jnp.nan]]])
    return Sequence.from_lengths(values, jnp.asarray([2, 1]))


def test_lengths_and_mask() -> None:
    x = example()
    assert x.lengths.tolist() == [2, 1]
    assert x.mask.tolist() == [[True, True, False], [True, False, False]]
    assert x.expanded_mask().shape == (2, 3, 1)


def test_masked_removes_nan_from_values_and_gradients() -> None:
    x = example()
    assert x.masked().values[..., 0].tolist() == [[1, 2, 0], [3, 0, 0]]
    gradient = jax.grad(lambda v: jnp.sum(x.with_values(v).masked().values ** 2))(x.values)
    assert gradient[..., 0].tolist() == [[2, 4, 0], [6, 0, 0]]


def test_pad_to_multiple_adds_padding_only() -> None:
    padded = example().pad_to_multiple(4)
    assert padded.values.shape == (2, 4, 1)
    assert padded.lengths.tolist() == [2, 1]
    assert example().pad_to_multiple(3).values.shape == (2, 3, 1)
