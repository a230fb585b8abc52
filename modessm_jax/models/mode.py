"""The latent speaking mode: how likely each mode is, and what a mode does to the features."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from modessm_jax.models import running_statistics
from modessm_jax.sequence import Sequence

PRIOR_FRAMES = 10.0


class ModeHead(nnx.Module):
    """The log-probability of each mode (of silent and vocalised speech, say), from features.

    Mean and log deviation of every feature over the real frames, one hidden layer, softmax. The
    deviations tell loud from quiet, the means which features are at work (pooled statistics: Snyder
    et al. 2018). No norm levels them: what the objective finds without labels is what differs most
    between trials, which a trial's own norm hides. They start as though `PRIOR_FRAMES` frames of
    mean 0 and variance 1 had been seen, which short trials and the first frames of a stream need.

    Causal, a frame's row rests on the frames so far, and the running sums are the state of a
    stream; otherwise the trial has one row. Random weights make the rows of different trials
    differ from the start: see `FiLM` for why they must.
    """

    def __init__(
        self, d: int, *, modes: int, hidden: int, causal: bool, dtype: Any, rngs: nnx.Rngs
    ):
        if modes < 2:
            raise ValueError(f"modes is {modes}: with less than two there is nothing to tell apart")
        self.d, self.causal = d, causal
        self.hidden = nnx.Linear(2 * d, hidden, dtype=dtype, rngs=rngs)
        self.out = nnx.Linear(hidden, modes, rngs=rngs)

    def __call__(self, x: Sequence) -> Float[Array, "batch rows modes"]:
        """Float32 log-probabilities: a row for each trial, or for each frame if causal."""
        start = self.initial_state(x.mask.shape[0])
        if self.causal:
            return self.step(start, x)[1]
        return self._classify(*running_statistics.of_trial(start, x))

    def initial_state(self, batch: int) -> Any:
        """Number, sum and sum of squares of the frames before the first."""
        return running_statistics.prior(batch, self.d, PRIOR_FRAMES)

    def step(self, state: Any, x: Sequence) -> tuple[Any, Float[Array, "batch frames modes"]]:
        """The rows of the next frames, any number of them.

        Raises:
            ValueError: the head is not causal.
        """
        if not self.causal:
            raise ValueError("a mode told from the whole trial cannot stream: not causal")
        state, seen = running_statistics.so_far(state, x)
        return state, self._classify(*seen)

    def _classify(self, mean: jax.Array, variance: jax.Array) -> jax.Array:
        seen = jnp.concatenate([mean, 0.5 * jnp.log(variance)], axis=-1)
        hidden = jax.nn.silu(self.hidden(seen))
        return jax.nn.log_softmax(self.out(hidden), axis=-1)


class FiLM(nnx.Module):
    """A scale and a shift of each feature for each mode: `x (1 + scale[z]) + shift[z]`.

    Perez et al. 2018, "FiLM: visual reasoning with a general conditioning layer". It starts as the
    identity in every mode, so that a model of modes starts as the model without.

    The marginal likelihood has a saddle there. Trial i pulls the parameters of mode z by
    `p(z|x_i, y_i) g_i`, and where modes act alike that posterior is the head's p(z|x_i) and g_i is
    the same for all z. Were p(z|x) the same for all trials too, every mode would be pulled the same
    way for ever. It is the head's random weights, by which trials differ in p(z|x), that part them.
    """

    def __init__(self, d: int, *, modes: int, dtype: Any):
        self.dtype = dtype
        self.scale = nnx.Param(jnp.zeros((modes, d)))
        self.shift = nnx.Param(jnp.zeros((modes, d)))

    def __call__(self, x: Sequence, z: Float[Array, "#batch #frames modes"]) -> Sequence:
        """Modulates `[batch, frames, d]`.

        Args:
            x: the features.
            z: weights of the modes, one-hot or a posterior, for each trial or for all alike; one
                row for the trial or for each frame. The mean scale and shift under these weights
                are applied.
        """
        scale, shift = (
            jnp.einsum("bfm,md->bfd", z, of_mode[...]).astype(self.dtype)
            for of_mode in (self.scale, self.shift)
        )
        return x.with_values(x.values * (1 + scale) + shift)
