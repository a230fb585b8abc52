"""The two forms of the depthwise convolution agree with numpy's definition and each other."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modessm_jax.models import depthwise


@pytest.mark.parametrize("kernel", [1, 2, 5])
def test_both_forms_equal_the_definition(kernel: int) -> None:
    rng = np.random.default_rng(kernel)
    x, taps = rng.normal(size=(2, 9, 3)), rng.normal(size=(kernel, 3))
    want = np.zeros((2, 9 - kernel + 1, 3))
    for t in range(want.shape[1]):
        want[:, t] = np.einsum("bkc,kc->bc", x[:, t : t + kernel], taps)
    x, taps = jnp.asarray(x, jnp.float32), jnp.asarray(taps, jnp.float32)
    for form in (depthwise._by_taps, depthwise._grouped, depthwise.depthwise_conv):
        np.testing.assert_allclose(form(x, taps), want, atol=1e-5)


def test_gradients_agree() -> None:
    x = jax.random.normal(jax.random.key(0), (2, 9, 3))
    taps = jax.random.normal(jax.random.key(1), (4, 3))
    grads = [
        jax.grad(lambda x, w, f=form: jnp.sum(jnp.sin(f(x, w))), argnums=(0, 1))(x, taps)
        for form in (depthwise._by_taps, depthwise._grouped)
    ]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), *grads)
