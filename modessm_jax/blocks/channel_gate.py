"""Channel normalisation and the channel gate, from statistics of the real frames."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from modessm_jax.blocks import running_statistics
from modessm_jax.blocks.block import Block
from modessm_jax.sequence import Sequence

PRIOR_FRAMES = 50.0


class ChannelGate(Block):
    """Each channel of a trial normalised over time, then weighted by squeeze and excitation.

    The squeeze is what the normalisation removes: the mean and log deviation of every channel. Two
    layers and a sigmoid turn it into a weight for each channel (Hu et al. 2018; pooled deviations:
    Lee et al. 2019). So the level of a trial, and which electrodes are dead, still reach the model.

    A causal gate takes the statistics of the frames so far, and its running sums are the state of a
    stream; otherwise they are those of the whole trial. Both start with `PRIOR_FRAMES` frames (1 s
    at 20 ms) of mean 0 and variance 1, which z-scored features have: without them the first frames
    of a stream, short trials and silent channels would be scaled up enormously.
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
        self.check_step(x)
        state, statistics = running_statistics.so_far(state, x)
        return state, self._weigh(x, *statistics)

    def _weigh(
        self,
        x: Sequence,
        mean: Float[Array, "batch #time channels"],
        variance: Float[Array, "batch #time channels"],
    ) -> Sequence:
        normed = (x.masked().values.astype(jnp.float32) - mean) * jax.lax.rsqrt(variance)
        squeezed = jnp.concatenate([mean, 0.5 * jnp.log(variance)], axis=-1)
        weights = jax.nn.sigmoid(self.excite(jax.nn.relu(self.squeeze(squeezed))))
        return x.with_values(normed.astype(self.dtype) * weights)
