"""Fusion of three pathways of different frame rates, at the middle rate."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from modessm_jax.blocks.attention import RelativeAttention
from modessm_jax.blocks.block import Dropout, require_whole_steps
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

    `ratios` are those of the frame rates (fast over medium, medium over slow). The fusion streams
    where its attention has chunks. The sum is normalised if `final_norm`.
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
        self.to_fast, self.to_slow = (
            RelativeAttention(d, heads, chunk=chunk, left=left, dtype=dtype, rngs=rngs)
            for _ in range(2)
        )
        self.norm = nnx.LayerNorm(3 * d, dtype=dtype, rngs=rngs)
        self.mix = nnx.Linear(3 * d, d, dtype=dtype, rngs=rngs)
        self.final_norm = nnx.LayerNorm(d, dtype=dtype, rngs=rngs) if final_norm else None
        self.dropout = Dropout(rate)

    def initial_state(self, batch: int) -> Any:
        return self.to_fast.initial_state(batch), self.to_slow.initial_state(batch)

    def run(
        self,
        state: Any,
        fast: Sequence,
        medium: Sequence,
        slow: Sequence,
        *,
        key: jax.Array | None = None,
    ) -> tuple[Any, Sequence]:
        """Fuses whole sequences if `state` is None, else the next frames of a stream.

        Raises:
            ValueError: the frames of a stream do not fill whole steps.
        """
        if state is not None:
            require_whole_steps(fast, self.ratios[0])
        fast_state, slow_state = state or (None, None)
        aligned = lower_rate(fast, self.ratios[0]), medium, raise_rate(slow, self.ratios[1])
        fast, medium, slow = (x.masked() for x in aligned)
        fast_state, from_fast = self.to_fast.run(fast_state, medium, fast)
        slow_state, from_slow = self.to_slow.run(slow_state, medium, slow)
        joined = jnp.concatenate([from_fast, medium.values, from_slow], axis=-1)
        mixed = jax.nn.gelu(self.mix(self.norm(joined)))
        mixed = medium.values + self.dropout(mixed, key)
        mixed = mixed if self.final_norm is None else self.final_norm(mixed)
        return (fast_state, slow_state), medium.with_values(mixed)
