"""Channel normalisation and the channel gate, by the statistics of the real frames alone."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from modessm_jax.models.block import Block
from modessm_jax.sequence import Sequence

PRIOR_FRAMES = 50.0


class ChannelGate(Block):
    """Each channel of a trial normalised over time, then weighted by squeeze and excitation.

    The squeeze is what the normalisation takes away, the mean and log deviation of every channel
    (after it, every mean would read zero); two layers and a sigmoid turn it into a weight for each
    channel (Hu et al. 2018; pooled deviations: Lee et al. 2019). So a trial's overall level, which
    electrodes are dead, and how loudly the rest speak still reach the model.

    Causal, the statistics of a frame are those of the frames so far, and the running sums are the
    state of a stream; otherwise those of the whole trial. Both start as though `PRIOR_FRAMES`
    frames (1 s at 20 ms) of mean 0 and variance 1 had been seen, which z-scored features have:
    the first frames of a stream, short trials and silent channels are not blown up.
    """

    def __init__(self, channels: int, *, hidden: int, causal: bool, dtype: Any, rngs: nnx.Rngs):
        self.channels, self.causal, self.dtype = channels, causal, dtype
        self.back, self.ahead = None, 0 if causal else None
        self.squeeze = nnx.Linear(2 * channels, hidden, dtype=dtype, rngs=rngs)
        self.excite = nnx.Linear(hidden, channels, dtype=dtype, rngs=rngs)

    def __call__(self, x: Sequence, *, key: jax.Array | None = None) -> Sequence:
        start = self.initial_state(x.mask.shape[0])
        if self.causal:
            return self.step(start, x)[1]
        sums = [part.sum(axis=1, keepdims=True) for part in _powers(x)]
        return self._weigh(x, *(old[:, None] + new for old, new in zip(start, sums, strict=True)))

    def initial_state(self, batch: int) -> Any:
        """Number, sum and sum of squares of the frames before the first."""
        count = jnp.full((batch, 1), PRIOR_FRAMES)
        squares = jnp.full((batch, self.channels), PRIOR_FRAMES)
        return count, jnp.zeros_like(squares), squares

    def step(self, state: Any, x: Sequence) -> tuple[Any, Sequence]:
        if not self.causal:
            raise ValueError(
                "a gate over the statistics of the whole trial cannot stream: not causal"
            )
        sums = [jnp.cumsum(part, axis=1) for part in _powers(x)]
        sums = [old[:, None] + new for old, new in zip(state, sums, strict=True)]
        return tuple(part[:, -1] for part in sums), self._weigh(x, *sums)

    def _weigh(
        self,
        x: Sequence,
        count: Float[Array, "batch #time 1"],
        total: Float[Array, "batch #time channels"],
        squares: Float[Array, "batch #time channels"],
    ) -> Sequence:
        mean = total / count
        variance = squares / count - mean**2  # the prior keeps it well above rounding
        normed = (x.masked().values.astype(jnp.float32) - mean) * jax.lax.rsqrt(variance)
        seen = jnp.concatenate([mean, 0.5 * jnp.log(variance)], axis=-1)
        weights = jax.nn.sigmoid(self.excite(jax.nn.relu(self.squeeze(seen))))
        return x.with_values(normed.astype(self.dtype) * weights)


def _powers(x: Sequence) -> tuple[jax.Array, jax.Array, jax.Array]:
    """1, x and x squared on the real frames, 0 on padding; float32, for sums of many frames."""
    values = x.masked().values.astype(jnp.float32)
    return x.mask[..., None].astype(jnp.float32), values, values**2
