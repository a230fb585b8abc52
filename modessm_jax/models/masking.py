"""Bins that training hides: a learned vector takes their place."""

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool

from modessm_jax.sequence import Sequence


def hide(
    x: Sequence, hidden: Bool[Array, "batch time"] | None, vector: nnx.Param | None
) -> Sequence:
    """Puts the vector in the place of the bins that are hidden, if any are.

    Args:
        x: `[batch, time, channels]`, which may have been padded since bins were hidden.
        hidden: which of its bins.
        vector: the model's, `[channels]`; None where it was built to see all bins.

    Raises:
        ValueError: bins are hidden from a model without a vector.
    """
    if hidden is None:
        return x
    if vector is None:
        raise ValueError("bins are hidden but the model was built without a mask vector")
    hidden = jnp.pad(hidden, ((0, 0), (0, x.mask.shape[1] - hidden.shape[1])))
    inserted = vector[...].astype(x.values.dtype)[None, None, :]
    return x.with_values(jnp.where(hidden[..., None], inserted, x.values))
