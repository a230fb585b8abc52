"""Adaptation to the recording session: electrodes move and tuning drifts from day to day."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Int

from modessm_jax.sequence import Sequence


class SessionAdaptation(nnx.Module):
    """A learned map of the channels for each session, frame by frame.

    `affine`: a full matrix and offset (Willett et al. 2023); `layernorm`: LayerNorm over channels
    with a scale and offset for each session. Both are stored as the difference from the identity,
    so that weight decay draws a session towards no adaptation.
    """

    def __init__(self, kind: str, *, channels: int, sessions: int, dtype: Any):
        shapes = {"affine": (sessions, channels, channels), "layernorm": (sessions, channels)}
        if kind not in shapes:
            raise ValueError(f"session = {kind!r}: choose 'affine', 'layernorm' or 'none'")
        self.kind, self.dtype = kind, dtype
        self.weight = nnx.Param(jnp.zeros(shapes[kind]))
        self.offset = nnx.Param(jnp.zeros((sessions, channels)))

    def __call__(self, x: Sequence, session: Int[Array, "batch"]) -> Sequence:
        """Adapts features `[batch, time, channels]` of the given sessions."""
        x = x.masked()
        values = x.values.astype(self.dtype)
        weight = self.weight[...][session].astype(self.dtype)
        offset = self.offset[...][session].astype(self.dtype)[:, None, :]
        if self.kind == "affine":
            return x.with_values(values + jnp.einsum("btc,bcd->btd", values, weight) + offset)
        # In half precision the mean of the squares would hardly differ from the square of the mean.
        normed = jax.nn.standardize(x.values.astype(jnp.float32), axis=-1, epsilon=1e-5)
        return x.with_values(normed.astype(self.dtype) * (1 + weight[:, None, :]) + offset)
