"""What every model returns."""

from typing import Any

import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float

from modessm_jax.sequence import Sequence


@struct.dataclass
class JointInputs:
    """Inputs and parameters of a joint network, `tanh(encoder + predictor) @ kernel + bias`."""

    encoder: Sequence  # [batch, frames, joint d]
    predictor: Any  # [batch, labels + 1, joint d]; None where no labels were given
    kernel: Any  # float32 [joint d, classes]
    bias: Any  # float32 [classes]


@struct.dataclass
class Outputs:
    """Result of one forward pass.

    `logits` always has "phoneme"; further names ("interctc", "diphone", ...) are auxiliary heads.
    `diagnostics` has one number per example, for reports only: {"norm/fast": [batch], ...}.

    A model that is run in every mode gives `modes` rows for each example, one after the other, in
    all but `log_modes`, `flow` and `diagnostics`.
    """

    encoder: Sequence  # [batch, frames, d]
    logits: dict[str, Sequence]  # float32 [batch, frames, classes]
    diagnostics: dict[str, Any]
    transducer: JointInputs | None = None
    log_modes: Any = None  # float32 [batch, modes], log probabilities of the latent mode
    flow: Any = None  # (predicted, true) velocities of the flow bridge


def frame_norm(x: Sequence) -> Float[Array, "batch"]:
    """Root mean square of each example's real frames, for `diagnostics`."""
    x = x.masked()
    squares = jnp.square(x.values.astype(jnp.float32)).mean(axis=-1).sum(axis=1)
    return jnp.sqrt(squares / jnp.maximum(x.lengths, 1))
