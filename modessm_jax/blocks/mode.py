"""The latent speaking mode: the probability of each mode, and its effect on the features."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from modessm_jax.blocks import running_statistics
from modessm_jax.sequence import Sequence

PRIOR_FRAMES = 10.0


class ModeHead(nnx.Module):
    """The log probability of each mode (for example silent and vocalised speech), from features.

    Mean and log deviation of every feature over the real frames, one hidden layer, softmax (pooled
    statistics: Snyder et al. 2018). The statistics are not normalised per trial: the objective
    finds, without labels, what differs most between trials, which such a norm would hide. They
    start with `PRIOR_FRAMES` frames of mean 0 and variance 1, for short trials and the first frames
    of a stream.

    A causal head has a row for each frame, from the frames so far, and its running sums are the
    state of a stream; otherwise a trial has one row. Random weights make the rows of different
    trials differ from the start, which `FiLM` needs.
    """

    def __init__(
        self, d: int, *, modes: int, hidden: int, causal: bool, dtype: Any, rngs: nnx.Rngs
    ):
        if modes < 2:
            raise ValueError(f"modes is {modes}: give at least 2 modes to distinguish")
        self.d, self.causal = d, causal
        self.hidden = nnx.Linear(2 * d, hidden, dtype=dtype, rngs=rngs)
        self.out = nnx.Linear(hidden, modes, rngs=rngs)

    def __call__(self, x: Sequence) -> Float[Array, "batch rows modes"]:
        """Float32 log probabilities: a row for each trial, or for each frame if causal."""
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
            raise ValueError("ModeHead is not causal: it needs the whole trial")
        state, statistics = running_statistics.so_far(state, x)
        return state, self._classify(*statistics)

    def _classify(self, mean: jax.Array, variance: jax.Array) -> jax.Array:
        statistics = jnp.concatenate([mean, 0.5 * jnp.log(variance)], axis=-1)
        return jax.nn.log_softmax(self.out(jax.nn.silu(self.hidden(statistics))), axis=-1)


class FiLM(nnx.Module):
    """A scale and a shift of each feature for each mode: `x (1 + scale[z]) + shift[z]`.

    Perez et al. 2018, "FiLM: visual reasoning with a general conditioning layer". It starts as the
    identity in every mode, so that a model of modes starts as the model without.

    The marginal likelihood has a saddle there. Trial i adds `p(z|x_i, y_i) g_i` to the gradient of
    mode z. Where all modes act alike, that posterior is the head's p(z|x_i), and g_i is the same
    for all z. If p(z|x) were the same for all trials too, every mode would get the same gradient
    for ever. The head's random weights make trials differ in p(z|x), and so the modes part.
    """

    def __init__(self, d: int, *, modes: int, dtype: Any):
        self.dtype = dtype
        self.scale = nnx.Param(jnp.zeros((modes, d)))
        self.shift = nnx.Param(jnp.zeros((modes, d)))

    def __call__(self, x: Sequence, z: Float[Array, "#batch #frames modes"]) -> Sequence:
        """Applies the mean scale and shift under the weights of the modes.

        Args:
            x: the features, `[batch, frames, d]`.
            z: the weights, one-hot or probabilities; for each trial or one row for all, and for
                each frame or one row for the trial.
        """
        scale, shift = (
            jnp.einsum("bfm,md->bfd", z, of_mode[...]).astype(self.dtype)
            for of_mode in (self.scale, self.shift)
        )
        return x.with_values(x.values * (1 + scale) + shift)
