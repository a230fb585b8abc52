"""What every decoder does to its features first: session adaptation, and hidden bins."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Int

from modessm_jax.sequence import Sequence


class SessionAdaptation(nnx.Module):
    """A learned map of the channels for each session, frame by frame.

    Electrodes move and tuning drifts from day to day. `affine`: a full matrix and offset (Willett
    et al. 2023); `layernorm`: LayerNorm over channels with a scale and offset for each session;
    `none`: no map. The parameters are the difference from the identity, so that weight decay draws
    a session towards no adaptation.
    """

    def __init__(self, kind: str, *, channels: int, sessions: int, dtype: Any):
        shapes = {"affine": (sessions, channels, channels), "layernorm": (sessions, channels)}
        if kind not in (*shapes, "none"):
            raise ValueError(f"session = {kind!r}: choose 'affine', 'layernorm' or 'none'")
        self.kind, self.dtype = kind, dtype
        if kind != "none":
            self.weight = nnx.Param(jnp.zeros(shapes[kind]))
            self.offset = nnx.Param(jnp.zeros((sessions, channels)))

    def __call__(self, x: Sequence, session: Int[Array, "batch"]) -> Sequence:
        """Adapts features `[batch, time, channels]` of the given sessions."""
        x = x.masked()
        if self.kind == "none":
            return x
        values = x.values.astype(self.dtype)
        weight = self.weight[...][session].astype(self.dtype)
        offset = self.offset[...][session].astype(self.dtype)[:, None, :]
        if self.kind == "affine":
            return x.with_values(values + jnp.einsum("btc,bcd->btd", values, weight) + offset)
        # In half precision the mean of the squares would hardly differ from the square of the mean.
        normed = jax.nn.standardize(x.values.astype(jnp.float32), axis=-1, epsilon=1e-5)
        return x.with_values(normed.astype(self.dtype) * (1 + weight[:, None, :]) + offset)


def hide(
    x: Sequence, hidden: Bool[Array, "batch time"] | None, vector: nnx.Param | None
) -> Sequence:
    """Replaces the hidden bins, if there are any, by a learned vector.

    Args:
        x: `[batch, time, channels]`; padding may have been appended since bins were hidden.
        hidden: which of its bins are hidden, in training.
        vector: of the model, `[channels]`; None where it was built without one.

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
