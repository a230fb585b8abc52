"""Sums of probabilities held as logarithms, for the lattices of CTC and RNN-T."""

import jax.numpy as jnp
from jaxtyping import Array, Float

# The logarithm of probability zero. Unlike -inf it can be added up, and subtracted from itself,
# without ever becoming NaN; no sum of real log probabilities comes near it.
ZERO = -1e30
IMPOSSIBLE = -1e25  # a total below this went through ZERO


def log_add(
    a: Float[Array, "..."], b: Float[Array, "..."]
) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    """`ln(e^a + e^b)`, and the share of `e^a` in that sum.

    The share is all that a backward pass needs: with it, gradients are products and sums of
    numbers between 0 and 1, without exponentials of differences of large totals.
    """
    difference = a - b
    smaller = jnp.exp(-jnp.abs(difference))
    # Not log1p: what it would keep is below the rounding of the sum it is added to.
    total = jnp.maximum(a, b) + jnp.log(1 + smaller)
    return total, jnp.where(difference >= 0, 1, smaller) / (1 + smaller)
