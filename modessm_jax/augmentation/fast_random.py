"""Random numbers from a table, made for CPUs: they are most of what augmentation costs there.

One 32-bit word of the generator gives two numbers, and a table of 65,536 quantiles takes the place
of the inverse normal distribution. GPUs and TPUs run the same code, which is not made for them.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Key, Shaped, UInt16
from scipy.special import ndtri

LEVELS = 1 << 16


def normal(key: Key[Array, ""], shape: tuple[int, ...], dtype: jnp.dtype) -> Float[Array, "..."]:
    """Standard normal numbers of 65,536 levels; the tails end at 4.3 standard deviations."""
    return jnp.asarray(_quantiles(), dtype)[_bits(key, shape)]


def event(key: Key[Array, ""], shape: tuple[int, ...], probability: float) -> Bool[Array, "..."]:
    """True with the given probability, rounded to one in 65,536."""
    return _bits(key, shape) < jnp.uint16(round(probability * LEVELS))


def _bits(key: Key[Array, ""], shape: tuple[int, ...]) -> UInt16[Array, "..."]:
    """Sixteen random bits for each entry; two entries share a word of the generator."""
    *leading, last = shape
    words = jax.random.bits(key, (*leading, -(-last // 2)))
    halves = jax.lax.bitcast_convert_type(words, jnp.uint16)
    return halves.reshape((*leading, -1))[..., :last]


@functools.cache
def _quantiles() -> Shaped[np.ndarray, "levels"]:
    """The standard normal's quantiles at the centres of equal slices of probability."""
    return ndtri((np.arange(LEVELS) + 0.5) / LEVELS)
