"""Padded sequences: values with the mask of their real frames."""

from typing import Any

import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Int, Shaped


@struct.dataclass
class Sequence:
    """A batch of sequences of unequal length.

    `values` is `[batch, time, ...]`; `mask` is `[batch, time]`, true on real frames. Values where
    the mask is false have no meaning (they may be NaN) and never change a result. The fields are
    typed loosely because JAX also builds trees of shardings and shapes from this class.
    """

    values: Any
    mask: Any

    @classmethod
    def from_lengths(
        cls, values: Shaped[Array, "batch time ..."], lengths: Int[Array, "batch"]
    ) -> "Sequence":
        """Marks the first `lengths[b]` frames of example `b` as real."""
        return cls(values, jnp.arange(values.shape[1])[None, :] < lengths[:, None])

    @property
    def lengths(self) -> Int[Array, "batch"]:
        """Real frames of each example."""
        return self.mask.sum(axis=1, dtype=jnp.int32)

    def expanded_mask(self) -> Bool[Array, "batch time ..."]:
        """The mask with one trailing axis of size 1 for each further axis of `values`."""
        return jnp.reshape(self.mask, self.mask.shape + (1,) * (self.values.ndim - 2))

    def masked(self) -> "Sequence":
        """Zeroes the padding, NaN included; its gradients are zero too."""
        zero = jnp.zeros((), self.values.dtype)
        return self.with_values(jnp.where(self.expanded_mask(), self.values, zero))

    def with_values(self, values: Shaped[Array, "batch time ..."]) -> "Sequence":
        """The same mask with other values."""
        return Sequence(values, self.mask)

    def pad_to_multiple(self, block: int) -> "Sequence":
        """Appends padding until the number of frames is a multiple of `block`."""
        extra = -self.mask.shape[1] % block
        widths = ((0, 0), (0, extra))
        return Sequence(
            jnp.pad(self.values, widths + ((0, 0),) * (self.values.ndim - 2)),
            jnp.pad(self.mask, widths),
        )
