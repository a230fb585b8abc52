"""Channel normalisation and the channel gate, by the statistics of the real frames alone."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from modessm_jax.models import running_statistics
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
        return self._weigh(x, *running_statistics.of_trial(start, x))

    def initial_state(self, batch: int) -> Any:
        """Number, sum and sum of squares of the frames before the first."""
        return running_statistics.prior(batch, self.channels, PRIOR_FRAMES)

    def step(self, state: Any, x: Sequence) -> tuple[Any, Sequence]:
        if not self.causal:
            raise ValueError(
                "a gate over the statistics of the whole trial cannot stream: not causal"
            )
        state, seen = running_statistics.so_far(state, x)
        return state, self._weigh(x, *seen)

    def _weigh(
        self,
        x: Sequence,
        mean: Float[Array, "batch #time channels"],
        variance: Float[Array, "batch #time channels"],
    ) -> Sequence:
        normed = (x.masked().values.astype(jnp.float32) - mean) * jax.lax.rsqrt(variance)
        seen = jnp.concatenate([mean, 0.5 * jnp.log(variance)], axis=-1)
        weights = jax.nn.sigmoid(self.excite(jax.nn.relu(self.squeeze(seen))))
        return x.with_values(normed.astype(self.dtype) * weights)
