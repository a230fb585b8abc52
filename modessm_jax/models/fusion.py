"""Fusion of three time scales at the rate of the middle one."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from modessm_jax.models.attention import RelativeAttention
from modessm_jax.models.block import Dropout, require_whole_steps
from modessm_jax.sequence import Sequence


def lower_rate(x: Sequence, ratio: int) -> Sequence:
    """Means of the real frames in each group of `ratio`; a group is real if its first frame is."""
    x = x.pad_to_multiple(ratio).masked()
    batch, time = x.mask.shape
    total = x.values.reshape(batch, time // ratio, ratio, -1).sum(axis=2)
    count = x.mask.reshape(batch, time // ratio, ratio).sum(axis=2)[..., None]
    return Sequence(total / jnp.maximum(count, 1).astype(total.dtype), x.mask[:, ::ratio])


def raise_rate(x: Sequence, ratio: int) -> Sequence:
    """Each frame `ratio` times."""
    return jax.tree.map(lambda frames: jnp.repeat(frames, ratio, axis=1), x)


class CrossScaleFusion(nnx.Module):
    """The middle pathway attends to the fast and the slow one; the three are mixed and added to it.

    `ratios` are the frame rates (fast over medium, medium over slow). Everything happens within a
    chunk and its bounded past, so the fusion streams whenever its attention has chunks. The sum
    is normalised where `final_norm` is set.
    """

    def __init__(
        self,
        d: int,
        *,
        ratios: tuple[int, int],
        heads: int,
        rate: float,
        final_norm: bool,
        chunk: int | None,
        left: int,
        dtype: Any,
        rngs: nnx.Rngs,
    ):
        self.ratios = ratios

        def attention() -> RelativeAttention:
            return RelativeAttention(d, heads, chunk=chunk, left=left, dtype=dtype, rngs=rngs)

        self.to_fast, self.to_slow = attention(), attention()
        self.norm = nnx.LayerNorm(3 * d, dtype=dtype, rngs=rngs)
        self.mix = nnx.Linear(3 * d, d, dtype=dtype, rngs=rngs)
        self.final_norm = nnx.LayerNorm(d, dtype=dtype, rngs=rngs) if final_norm else None
        self.dropout = Dropout(rate)

    def __call__(
        self, fast: Sequence, medium: Sequence, slow: Sequence, *, key: jax.Array | None = None
    ) -> Sequence:
        fast, medium, slow = self._align(fast, medium, slow)
        return self._mix(self.to_fast(medium, fast), medium, self.to_slow(medium, slow), key=key)

    def initial_state(self, batch: int) -> Any:
        return self.to_fast.initial_state(batch), self.to_slow.initial_state(batch)

    def step(
        self, state: Any, fast: Sequence, medium: Sequence, slow: Sequence
    ) -> tuple[Any, Sequence]:
        require_whole_steps(fast, self.ratios[0])
        fast, medium, slow = self._align(fast, medium, slow)
        fast_state, from_fast = self.to_fast.step(state[0], medium, fast)
        slow_state, from_slow = self.to_slow.step(state[1], medium, slow)
        return (fast_state, slow_state), self._mix(from_fast, medium, from_slow, key=None)

    def _align(self, fast: Sequence, medium: Sequence, slow: Sequence) -> list[Sequence]:
        aligned = lower_rate(fast, self.ratios[0]), medium, raise_rate(slow, self.ratios[1])
        return [x.masked() for x in aligned]

    def _mix(
        self, from_fast: jax.Array, medium: Sequence, from_slow: jax.Array, key: jax.Array | None
    ) -> Sequence:
        joined = jnp.concatenate([from_fast, medium.values, from_slow], axis=-1)
        mixed = jax.nn.gelu(self.mix(self.norm(joined)))
        mixed = medium.values + self.dropout(mixed, key)
        return medium.with_values(mixed if self.final_norm is None else self.final_norm(mixed))
