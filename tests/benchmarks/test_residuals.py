"""Bytes and operations of traced programs, against those counted by hand."""

from typing import Any

import jax
import jax.numpy as jnp
import pytest

from benchmarks.residuals import cost, operations, peak, residuals

X, W = jax.ShapeDtypeStruct((4, 3), jnp.float32), jax.ShapeDtypeStruct((3, 5), jnp.float32)


def wave(x: Any, w: Any) -> Any:
    return jnp.sin(x @ w).sum()


def traced(function: Any, *given: Any) -> Any:
    return jax.make_jaxpr(function)(*given).jaxpr


def test_residuals_are_what_is_computed_and_kept() -> None:
    # The cosine of the product, 4 x 5 numbers; x is an argument.
    found = traced(lambda x, w: jax.vjp(lambda w: wave(x, w), w)[1], X, W)
    assert residuals(found) == 4 * 20
    again = jax.checkpoint(wave)
    assert residuals(traced(lambda x, w: jax.vjp(lambda w: again(x, w), w)[1], X, W)) == 0


def test_operations_are_those_of_products_also_in_loops_and_computed_again() -> None:
    product = 2 * 4 * 5 * 3
    assert operations(traced(wave, X, W)) == product
    assert operations(traced(jax.grad(wave, argnums=1), X, W)) == 2 * product
    assert operations(traced(jax.grad(jax.checkpoint(wave), argnums=1), X, W)) == 3 * product

    def loop(x: Any, w: Any) -> Any:
        return jax.lax.scan(lambda total, _: (total + wave(x, w), None), 0.0, None, length=7)[0]

    assert operations(traced(loop, X, W)) == 7 * product
    image = jax.ShapeDtypeStruct((1, 8, 2), jnp.float32)
    kernel = jax.ShapeDtypeStruct((3, 2, 6), jnp.float32)

    def convolve(x: Any, kernel: Any) -> Any:
        return jax.lax.conv_general_dilated(
            x, kernel, (1,), "VALID", dimension_numbers=("NWC", "WIO", "NWC")
        )

    assert operations(traced(convolve, image, kernel)) == 2 * (6 * 6) * (3 * 2)


def test_the_peak_is_of_what_is_still_needed() -> None:
    def chain(x: Any) -> Any:
        return jnp.cos(jnp.sin(jnp.exp(x)))  # two of them at a time

    assert peak(traced(chain, X)) == 2 * 48

    def sum_of(x: Any) -> Any:
        return jnp.exp(x) + jnp.cos(jnp.sin(x))  # exp, sin and cos; then exp, cos and the sum

    assert peak(traced(sum_of, X)) == 3 * 48
    assert peak(traced(jax.jit(chain), X)) == 2 * 48


@pytest.mark.slow
def test_a_recipe_keeps_less_where_its_blocks_are_computed_again() -> None:
    every, none, dots = (
        cost("modessm:small/joint", 4, 200, remat=remat) for remat in ("none", "blocks", "dots")
    )
    assert none.residuals < dots.residuals < every.residuals
    assert every.operations < dots.operations < none.operations < 1.35 * every.operations
