"""Both forms of the recurrence equal its definition, in values and gradients."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modessm_jax.models.scan import chunked, recurrent, selective_scan

TIME = 10
FORMS: dict[str, Callable[..., Any]] = {
    "recurrent": recurrent,
    **{f"chunk {chunk}": partial(chunked, chunk=chunk) for chunk in (1, 4, 64)},
}
padded_scan: Callable[..., Any] = selective_scan


def inputs(time: int = TIME) -> list[np.ndarray]:
    """x, log_decay, b, c and a first state of 2 examples, 3 heads, width 4, state 5; float64."""
    rng = np.random.default_rng(0)
    log_decay = -np.exp(rng.uniform(-5, 1, size=(2, time, 3)))
    x, b, c = (rng.normal(size=(2, time, *rest)) for rest in [(3, 4), (5,), (5,)])
    return [x, log_decay, b, c, rng.normal(size=(2, 3, 4, 5))]


def definition(x: Any, log_decay: Any, b: Any, c: Any, state: Any) -> tuple[jax.Array, jax.Array]:
    """Every frame's weight on every later one written out: no recurrence, no running sums."""
    t, s, k = np.ogrid[: x.shape[1], -1 : x.shape[1], : x.shape[1]]  # s = -1: the first state
    between = jnp.asarray((s < k) & (k <= t))[None, ..., None]
    kept = jnp.prod(jnp.where(between, jnp.exp(log_decay)[:, None, None], 1.0), axis=3)
    kept = jnp.where(jnp.asarray(s <= t)[None], kept, 0.0)  # [batch, t, s, heads]
    added = jnp.einsum("bshp,bsn->bshpn", x, b)
    added = jnp.concatenate([state[:, None], added], axis=1)
    states = jnp.einsum("btsh,bshpn->bthpn", kept, added)
    return jnp.einsum("bthpn,btn->bthp", states, c), states[:, -1]


def outputs_and_gradients(form: Callable[..., Any], arrays: list[Any]) -> Any:
    """Outputs, last state, and the gradients of a scalar of both by all five arguments."""

    def scalar(*arrays: jax.Array) -> tuple[jax.Array, Any]:
        y, state = form(*arrays)
        return jnp.sum(jnp.sin(y)) + jnp.sum(jnp.cos(2 * state)), (y, state)

    gradient = jax.jit(jax.value_and_grad(scalar, argnums=tuple(range(5)), has_aux=True))
    (_, found), grads = gradient(*arrays)
    return found, grads


@pytest.fixture(scope="module")
def truth() -> Any:
    with jax.enable_x64(True):
        return outputs_and_gradients(definition, [jnp.asarray(part) for part in inputs()])


@pytest.mark.parametrize("name", FORMS)
def test_forms_equal_the_definition(name: str, truth: Any) -> None:
    with jax.enable_x64(True):
        found = outputs_and_gradients(FORMS[name], [jnp.asarray(part) for part in inputs()])
        assert all(leaf.dtype == jnp.float64 for leaf in jax.tree.leaves((found, truth)))
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-10), found, truth)
    found = outputs_and_gradients(
        FORMS[name], [jnp.asarray(part, jnp.float32) for part in inputs()]
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), found, truth)


def test_a_sequence_in_two_parts_equals_the_whole() -> None:
    *frames, state = [jnp.asarray(part, jnp.float32) for part in inputs()]
    mask = jnp.ones((2, TIME), bool)
    y, last = padded_scan(*frames, mask, state)
    first, middle = padded_scan(*(part[:, :5] for part in frames), mask[:, :5], state)
    second, end = padded_scan(*(part[:, 5:] for part in frames), mask[:, 5:], middle)
    np.testing.assert_allclose(jnp.concatenate([first, second], axis=1), y, atol=1e-5)
    np.testing.assert_allclose(end, last, atol=1e-5)


def test_padding_leaves_the_state_untouched() -> None:
    *frames, state = [jnp.asarray(part, jnp.float32) for part in inputs()]
    real = np.array([0, 1, 2, 4, 5, 8])
    mask = jnp.zeros((2, TIME), bool).at[:, real].set(True)
    spoilt = [jnp.where(mask.reshape(2, TIME, *[1] * (part.ndim - 2)), part, jnp.nan)
              for part in frames]  # fmt: skip

    def scan(*arrays: jax.Array) -> Any:
        y, last = padded_scan(*arrays[:4], mask, arrays[4])
        return y[:, real], last

    def scan_real(*arrays: jax.Array) -> Any:
        return FORMS["recurrent"](*(part[:, real] for part in arrays[:4]), arrays[4])

    found = outputs_and_gradients(scan, [*spoilt, state])
    want = outputs_and_gradients(scan_real, [*frames, state])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), found, want)

    nothing = jnp.zeros_like(mask)
    assert jnp.array_equal(padded_scan(*spoilt, nothing, state)[1], state)


def test_decays_far_below_one_stay_finite() -> None:
    x, log_decay, *rest = [jnp.asarray(part, jnp.float32) for part in inputs(time=70)]
    found = outputs_and_gradients(chunked, [x, 100.0 * log_decay, *rest])
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(found))


def test_half_precision_frames_keep_a_full_state() -> None:
    arrays = [jnp.asarray(part, jnp.float32) for part in inputs()]
    x, log_decay, b, c, state = arrays
    half = [part.astype(jnp.bfloat16) for part in (x, b, c)]
    mask = jnp.ones((2, TIME), bool)
    y, last = padded_scan(half[0], log_decay, half[1], half[2], mask, state)
    assert y.dtype == last.dtype == jnp.float32
    rounded = [part.astype(jnp.float32) for part in half]
    want = recurrent(rounded[0], log_decay, rounded[1], rounded[2], state)
    np.testing.assert_allclose(y, want[0], atol=1e-4)
    np.testing.assert_allclose(last, want[1], atol=1e-4)
