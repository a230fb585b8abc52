"""Frame rates are changed by means of real frames and by repetition."""

import jax.numpy as jnp

from modessm_jax.blocks.fusion import lower_rate, raise_rate
from modessm_jax.sequence import Sequence


def test_lower_rate_averages_real_frames_only() -> None:
    values = jnp.asarray([[1.0, 3.0, 5.0, jnp.nan, jnp.nan]])[..., None]
    x = Sequence.from_lengths(values, jnp.asarray([3]))
    y = lower_rate(x, 2)
    assert y.values[0, :2, 0].tolist() == [2.0, 5.0]
    assert y.mask[0].tolist() == [True, True, False]


def test_raise_rate_repeats_frames_and_mask() -> None:
    x = Sequence.from_lengths(jnp.asarray([[1.0, 2.0]])[..., None], jnp.asarray([1]))
    y = raise_rate(x, 3)
    assert y.values[0, :, 0].tolist() == [1, 1, 1, 2, 2, 2]
    assert y.mask[0].tolist() == [True] * 3 + [False] * 3
