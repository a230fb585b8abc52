"""Depthwise convolution in time that is fast on every backend.

XLA's grouped convolution is several times slower on CPU than a loop over the taps, each a fused
multiply-add over the whole array; its gradient more so. Accelerators get the grouped convolution.
Like that, the loop adds up in float32 at least and rounds once.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


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
