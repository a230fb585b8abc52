"""What the field's models do to features first: smoothing and patches, which look a few bins ahead.

Both stream late: a step gives the frames whose last bin has come, in the order of the whole call.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Shaped

from modessm_jax.blocks.block import LateBlock
from modessm_jax.blocks.convolution import Convolution, depthwise_conv
from modessm_jax.sequence import Sequence

LEAST_TAP = 0.01  # of a Gaussian that sums to one; smaller taps are left out


class CentredSmoothing(Convolution):
    """The benchmarks' Gaussian smoothing of every channel, `sigma` in frames, centred on its frame.

    See `smoothing_taps`. Beyond the ends of a trial the features count as zero. A stream lags by
    the frames that it looks ahead, or by more: by a multiple of `unit`, so that the blocks after it
    keep the grid of their strides.

    Raises:
        ValueError: `sigma` is so large that no tap is left.
    """

    def __init__(self, channels: int, sigma: float, *, taps: int, unit: int, dtype: Any):
        self.weights = smoothing_taps(sigma, taps)
        count = len(self.weights)
        super().__init__(channels, count, 1, True, dtype, lookahead=count // 2)
        back, ahead = self.margins
        self.delay = -(-ahead // unit) * unit
        self.kept = self.delay + back

    def filter(
        self, values: Float[Array, "batch padded channels"]
    ) -> Float[Array, "batch time channels"]:
        taps = jnp.asarray(self.weights, self.dtype)[:, None]
        return depthwise_conv(values, jnp.broadcast_to(taps, (len(taps), self.channels)))


def smoothing_taps(sigma: float, taps: int = 0) -> tuple[float, ...]:
    """The taps of `CentredSmoothing`, which sum to one; a single tap where `sigma` is 0.

    `taps` of them (Willett et al. 2023 have 20 for a sigma of 2); an even number is centred half a
    frame later. Where `taps` is 0, those that exceed `LEAST_TAP` in a Gaussian that sums to one
    (Card et al. 2024: 9 for a sigma of 2).

    Raises:
        ValueError: `sigma` is so large that no tap is left.
    """
    if not sigma:
        return (1.0,)
    count = taps or 2 * int(4 * sigma + 0.5) + 1
    weights = np.exp(-0.5 * ((np.arange(count) - (count - 1) / 2) / sigma) ** 2)
    weights = weights / weights.sum()
    kept = weights if taps else weights[weights > LEAST_TAP]
    if not len(kept):
        raise ValueError(f"smoothing = {sigma}: every tap of it is below {LEAST_TAP}; give less")
    return tuple((kept / kept.sum()).tolist())


class Patches(LateBlock):
    """The `kernel` frames from the start of every stride, as one vector, the first frame first.

    With `whole`, a patch is real when all its frames are, else when its first one is; missing ones
    are zeros. Patches that overlap look ahead by `kernel - stride`.

    Raises:
        ValueError: the patches would skip frames.
    """

    def __init__(self, channels: int, kernel: int, stride: int, *, whole: bool, dtype: Any):
        if kernel < stride:
            raise ValueError(f"a patch of {kernel} bins skips bins at stride {stride}")
        super().__init__(channels, dtype)
        self.kernel, self.stride = kernel, stride
        self.block_size = stride
        self.window = kernel if whole else 1
        self.ahead = kernel - stride
        self.delay = -(-self.ahead // stride)
        self.kept = self.delay * stride

    def __call__(self, x: Sequence, *, key: Any = None) -> Sequence:
        x = x.pad_to_multiple(self.stride).masked()
        extra = (0, self.kept)
        values = jnp.pad(x.values.astype(self.dtype), ((0, 0), extra, (0, 0)))
        return self._cut(Sequence(values, jnp.pad(x.mask, ((0, 0), extra))))

    def step(self, state: Sequence, x: Sequence) -> tuple[Sequence, Sequence]:
        kept, both = self.extend(state, x)
        return kept, self._cut(both)

    def _cut(self, x: Sequence) -> Sequence:
        batch, time = x.mask.shape
        frames = time // self.stride - self.delay

        def view(
            array: Shaped[Array, "batch time ..."],
        ) -> Shaped[Array, "batch frames covered ..."]:
            # Shifted views beside each other: a gather's gradient would be a scatter.
            groups = array.reshape(batch, time // self.stride, self.stride, *array.shape[2:])
            shifted = [groups[:, shift : shift + frames] for shift in range(self.delay + 1)]
            return jnp.concatenate(shifted, axis=2)

        values = view(x.values)[:, :, : self.kernel]
        mask: Bool[Array, "batch frames covered"] = view(x.mask)
        real = mask[:, :, 0] & mask[:, :, self.window - 1]
        return Sequence(values.reshape(batch, frames, self.kernel * self.channels), real)
