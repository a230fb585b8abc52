"""Convolutions in time: depthwise, Gaussian smoothing, and strided to lower the frame rate.

XLA's grouped convolution is several times slower on CPU than a loop over the taps, each a fused
multiply-add over the whole array; its gradient more so. Accelerators get the grouped convolution.
Like that, the loop adds up in float32 at least and rounds once.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from modessm_jax.blocks.block import Block, Dropout, LateBlock, Serial
from modessm_jax.sequence import Sequence


def depthwise_conv(
    x: Float[Array, "batch padded channels"], taps: Float[Array, "kernel channels"]
) -> Float[Array, "batch time channels"]:
    """`y[b, t, c] = sum_k taps[k, c] x[b, t + k, c]`: a correlation, valid frames only.

    `time = padded - kernel + 1`.
    """
    return jax.lax.platform_dependent(x, taps, cpu=_by_taps, default=_grouped)


def _grouped(x: jax.Array, taps: jax.Array) -> jax.Array:
    return jax.lax.conv_general_dilated(
        x,
        taps[:, None, :],
        window_strides=(1,),
        padding="VALID",
        dimension_numbers=("NWC", "WIO", "NWC"),
        feature_group_count=x.shape[-1],
    )


@jax.custom_vjp
def _by_taps(x: jax.Array, taps: jax.Array) -> jax.Array:
    time = x.shape[1] - taps.shape[0] + 1
    exact = jnp.promote_types(x.dtype, jnp.float32)

    def add(total: jax.Array, tap: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        shift, weight = tap
        window = jax.lax.dynamic_slice_in_dim(x, shift, time, axis=1).astype(exact)
        return total + window * weight[None, None, :], None

    zero = jnp.zeros((x.shape[0], time, x.shape[2]), exact)
    each = (jnp.arange(taps.shape[0]), taps.astype(exact))
    return jax.lax.scan(add, zero, each)[0].astype(x.dtype)


def _by_taps_forward(x: jax.Array, taps: jax.Array) -> tuple[jax.Array, tuple]:
    return _by_taps(x, taps), (x, taps)


def _by_taps_backward(saved: tuple, grad: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, taps = saved
    kernel, time = taps.shape[0], grad.shape[1]
    exact = jnp.promote_types(x.dtype, jnp.float32)
    grad = grad.astype(exact)
    padded = jnp.pad(grad, ((0, 0), (kernel - 1, kernel - 1), (0, 0)))

    def add(total: jax.Array, tap: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        shift, weight = tap
        window = jax.lax.dynamic_slice_in_dim(x, shift, time, axis=1).astype(exact)
        grad_weight = (window * grad).sum(axis=(0, 1))
        flipped = jax.lax.dynamic_slice_in_dim(padded, kernel - 1 - shift, x.shape[1], axis=1)
        return total + flipped * weight[None, None, :], grad_weight

    each = (jnp.arange(kernel), taps.astype(exact))
    grad_x, grad_taps = jax.lax.scan(add, jnp.zeros(x.shape, exact), each)
    return grad_x.astype(x.dtype), grad_taps.astype(taps.dtype)


_by_taps.defvjp(_by_taps_forward, _by_taps_backward)


class Convolution(LateBlock):
    """Base of the convolutions with `kernel` taps every `stride` frames: windows, lengths, streams.

    Causal: the window of an output frame ends `lookahead` input frames after its own stride, and a
    stream is late by as many strides as these need. Otherwise it is centred on the stride. A frame
    is real when the first input frame of its stride is.
    """

    def __init__(
        self,
        channels: int,
        kernel: int,
        stride: int,
        causal: bool,
        dtype: Any,
        lookahead: int = 0,
    ):
        if kernel < stride:
            raise ValueError(f"a kernel of {kernel} frames skips frames at stride {stride}")
        super().__init__(channels, dtype)
        self.stride = self.block_size = stride
        ahead = lookahead if causal else (kernel - stride) // 2
        self.margins = (kernel - stride - ahead, ahead)
        self.back, self.ahead = self.margins
        self.delay = -(-lookahead // stride) if causal else 0
        self.kept = self.delay * stride + self.back

    def filter(self, values: Float[Array, "batch padded channels"]) -> Float[Array, "batch time d"]:
        """The convolution itself, over windows that lie wholly inside `values`."""
        raise TypeError(f"{type(self).__name__} does not define filter")

    def __call__(self, x: Sequence, *, key: jax.Array | None = None) -> Sequence:
        x = x.pad_to_multiple(self.stride).masked()
        values = jnp.pad(x.values, ((0, 0), self.margins, (0, 0)))
        return Sequence(self.filter(values.astype(self.dtype)), x.mask[:, :: self.stride])

    def step(self, state: Sequence, x: Sequence) -> tuple[Sequence, Sequence]:
        kept, both = self.extend(state, x)
        frames, (back, ahead) = x.mask.shape[1], self.margins
        values = self.filter(both.values[:, : back + frames + ahead])
        return kept, Sequence(values, both.mask[:, back : back + frames : self.stride])


class DepthwiseConv(Convolution):
    """One learned filter for each channel, at stride 1; `init` makes the taps, else random."""

    def __init__(
        self,
        channels: int,
        kernel: int,
        *,
        causal: bool,
        dtype: Any,
        rngs: nnx.Rngs,
        init: Any = None,
    ):
        super().__init__(channels, kernel, 1, causal, dtype)
        init = init or nnx.initializers.normal(kernel**-0.5)
        self.taps = nnx.Param(init(rngs.params(), (kernel, channels)))
        self.bias = nnx.Param(jnp.zeros((channels,)))

    def filter(self, values: Float[Array, "batch padded channels"]) -> Float[Array, "batch time d"]:
        out = depthwise_conv(values, self.taps[...].astype(self.dtype))
        return out + self.bias[...].astype(self.dtype)[None, None, :]


class GaussianSmoothing(Convolution):
    """Fixed Gaussian smoothing of every channel, `sigma` in frames, without taps below 1 %.

    A causal kernel has only the past half. Both kernels sum to one. Beyond the ends of a trial the
    features count as zero, the mean of z-scored features.
    """

    def __init__(self, channels: int, sigma: float, *, causal: bool, dtype: Any):
        radius = int(sigma * (2 * np.log(100)) ** 0.5)
        offsets = np.arange(-radius, 1 if causal else radius + 1)
        weights = np.exp(-0.5 * (offsets / sigma) ** 2)
        self.weights = tuple((weights / weights.sum()).tolist())
        super().__init__(channels, len(self.weights), 1, causal, dtype)

    def filter(self, values: Float[Array, "batch padded channels"]) -> Float[Array, "batch time d"]:
        taps = jnp.asarray(self.weights, self.dtype)[:, None]
        return depthwise_conv(values, jnp.broadcast_to(taps, (len(taps), self.channels)))


def make_smoothing(channels: int, sigma: float, *, causal: bool, dtype: Any) -> Block:
    """Gaussian smoothing of `sigma` frames; none where it is 0."""
    if not sigma:
        return Serial([])
    return GaussianSmoothing(channels, sigma, causal=causal, dtype=dtype)


class StridedConv(Convolution):
    """A full convolution that lowers the frame rate, then LayerNorm and dropout."""

    def __init__(
        self,
        channels: int,
        d: int,
        *,
        kernel: int,
        stride: int,
        causal: bool,
        dropout: float,
        dtype: Any,
        rngs: nnx.Rngs,
        lookahead: int = 0,
    ):
        super().__init__(channels, kernel, stride, causal, dtype, lookahead)
        # Windows of zeros (hidden bins, silence) would give LayerNorm a zero vector, where its
        # gradient is enormous. Random biases keep it from zero.
        self.conv = nnx.Conv(
            channels,
            d,
            (kernel,),
            stride,
            padding="VALID",
            bias_init=nnx.initializers.normal(0.1),
            dtype=dtype,
            rngs=rngs,
        )
        self.norm = nnx.LayerNorm(d, dtype=dtype, rngs=rngs)
        self.dropout = Dropout(dropout)

    def filter(self, values: Float[Array, "batch padded channels"]) -> Float[Array, "batch time d"]:
        return self.norm(self.conv(values))

    def __call__(self, x: Sequence, *, key: jax.Array | None = None) -> Sequence:
        y = super().__call__(x)
        return y.with_values(self.dropout(y.values, key))
