"""The depthwise convolution against its definition in both forms, and smoothing against scipy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter1d

from modessm_jax.blocks import convolution
from modessm_jax.blocks.convolution import Convolution, GaussianSmoothing
from modessm_jax.sequence import Sequence


@pytest.mark.parametrize("kernel", [1, 2, 5])
def test_both_forms_equal_the_definition(kernel: int) -> None:
    rng = np.random.default_rng(kernel)
    x, taps = rng.normal(size=(2, 9, 3)), rng.normal(size=(kernel, 3))
    want = np.zeros((2, 9 - kernel + 1, 3))
    for t in range(want.shape[1]):
        want[:, t] = np.einsum("bkc,kc->bc", x[:, t : t + kernel], taps)
    x, taps = jnp.asarray(x, jnp.float32), jnp.asarray(taps, jnp.float32)
    for form in (convolution._by_taps, convolution._grouped, convolution.depthwise_conv):
        np.testing.assert_allclose(form(x, taps), want, atol=1e-5)


def given(kernel: int = 4) -> tuple[jax.Array, jax.Array]:
    x = jax.random.normal(jax.random.key(0), (2, 9 + kernel, 3))
    return x, jax.random.normal(jax.random.key(1), (kernel, 3))


def gradients(form, x: jax.Array, taps: jax.Array) -> tuple[jax.Array, jax.Array]:
    return jax.grad(lambda x, w: jnp.sum(jnp.sin(form(x, w))), argnums=(0, 1))(x, taps)


def test_gradients_agree() -> None:
    ours, theirs = (
        gradients(form, *given()) for form in (convolution._by_taps, convolution._grouped)
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), ours, theirs)


def test_half_precision_is_rounded_once() -> None:
    half = [array.astype(jnp.bfloat16) for array in given(32)]
    full = [array.astype(jnp.float32) for array in half]
    found, exact = convolution._by_taps(*half), convolution._by_taps(*full)
    # The same weights of the outputs for both, which half precision holds as they are.
    weights = jnp.sign(exact)
    pulled = [jax.vjp(convolution._by_taps, *arrays)[1] for arrays in (half, full)]
    grads = pulled[0](weights.astype(jnp.bfloat16)), pulled[1](weights)
    for a, b in zip((found, *grads[0]), (exact, *grads[1]), strict=True):
        assert a.dtype == jnp.bfloat16
        np.testing.assert_allclose(a.astype(jnp.float32), b, rtol=2**-8, atol=1e-5)


def smooth(values: np.ndarray, causal: bool) -> np.ndarray:
    block = GaussianSmoothing(values.shape[1], 2.0, causal=causal, dtype=jnp.float32)
    x = Sequence(jnp.asarray(values[None], jnp.float32), jnp.ones((1, len(values)), bool))
    return np.asarray(block(x).values[0])


def test_symmetric_smoothing_equals_scipy() -> None:
    values = np.random.default_rng(0).normal(size=(40, 3))
    want = gaussian_filter1d(values, 2.0, axis=0, mode="constant", radius=6)
    np.testing.assert_allclose(smooth(values, causal=False), want, atol=1e-5)


def test_causal_smoothing_sees_only_the_past_and_keeps_the_mean() -> None:
    impulse = np.zeros((20, 1))
    impulse[8] = 1.0
    response = smooth(impulse, causal=True)[:, 0]
    assert (response[:8] == 0).all() and response[8] == response.max()
    assert response.sum() == pytest.approx(1.0, abs=1e-5)


def test_a_kernel_must_cover_its_stride() -> None:
    with pytest.raises(ValueError, match="skips frames"):
        Convolution(4, kernel=2, stride=3, causal=True, dtype=jnp.float32)
