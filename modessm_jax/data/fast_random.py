"""Random draws on the device at half the usual cost.

Random bits are what augmentation costs on a CPU, so each 32-bit word serves two draws.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Key, Shaped, UInt16
from scipy.special import ndtri

LEVELS = 1 << 16


def normal(key: Key[Array, ""], shape: tuple[int, ...], dtype: jnp.dtype) -> Float[Array, "..."]:
    """Standard normal draws, to one in 65,536: the tails end at 4.3 standard deviations."""
    return jnp.asarray(_quantiles(), dtype)[_bits(key, shape)]


def event(key: Key[Array, ""], shape: tuple[int, ...], probability: float) -> Bool[Array, "..."]:
    """True with the given probability, to one in 65,536."""
    return _bits(key, shape) < jnp.uint16(round(probability * LEVELS))


def _bits(key: Key[Array, ""], shape: tuple[int, ...]) -> UInt16[Array, "..."]:
    """Sixteen random bits for each entry, two entries to a word of the generator."""
    *leading, last = shape
    words = jax.random.bits(key, (*leading, -(-last // 2)))
    halves = jax.lax.bitcast_convert_type(words, jnp.uint16)
    return halves.reshape((*leading, -1))[..., :last]


@functools.cache
def _quantiles() -> Shaped[np.ndarray, "levels"]:
    """The standard normal's quantiles at the centres of equal slices of probability."""
    return ndtri((np.arange(LEVELS) + 0.5) / LEVELS)
