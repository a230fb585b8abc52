"""The selective block keeps the contract in both directions and is the layer that was published.

Its scan equals the definition of the recurrence, in values and gradients.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from modessm_jax.blocks.block import Serial
from modessm_jax.blocks.channel_gate import ChannelGate
from modessm_jax.blocks.convolution import DepthwiseConv, StridedConv
from modessm_jax.blocks.ssm import CHUNK, SelectiveBlock, SelectiveScan, selective_scan, step_bias
from modessm_jax.sequence import Sequence
from tests.blocks.contract import verify

F32 = jnp.float32
D = 6

step = nnx.jit(SelectiveBlock.step)
whole = nnx.jit(SelectiveBlock.__call__)


def block(causal: bool, *, kernel: int = 3, dtype: Any = F32) -> SelectiveBlock:
    return SelectiveBlock(
        D, heads=3, state=4, expand=2, kernel=kernel, layers=1, rate=0.1, drop_path=0.1,
        causal=causal, dtype=dtype, rngs=nnx.Rngs(0),
    )  # fmt: skip


def frames(time: int, batch: int = 2) -> Sequence:
    values = jax.random.normal(jax.random.key(1), (batch, time, D))
    return Sequence(values, jnp.ones((batch, time), bool))


@pytest.mark.parametrize(
    ("causal", "kernel"),
    [*(pytest.param(True, n, marks=pytest.mark.slow) for n in (1, 3)), (False, 3)],
)
def test_block(causal: bool, kernel: int) -> None:
    verify(block(causal, kernel=kernel), D)


@pytest.mark.slow
@pytest.mark.parametrize("causal", [True, False])
def test_encoder_from_features(causal: bool) -> None:
    """Gate, depthwise stem, patches of two frames, a block."""
    stem = DepthwiseConv(4, 3, causal=causal, dtype=F32, rngs=nnx.Rngs(1))
    patches = StridedConv(
        4, D, kernel=2, stride=2, causal=causal, dropout=0.1, dtype=F32, rngs=nnx.Rngs(2)
    )
    gate = ChannelGate(4, hidden=5, causal=causal, dtype=F32, rngs=nnx.Rngs(3))
    verify(Serial([gate, stem, patches, block(causal)]), 4, tight=False)


def silu(x: np.ndarray) -> np.ndarray:
    return x / (1 + np.exp(-x))


def published(scan: SelectiveScan, u: np.ndarray) -> np.ndarray:
    """The layer in float64, one frame after the other: [time, d] to [time, d]."""
    params = nnx.to_pure_dict(nnx.state(scan, nnx.Param))
    params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)

    def linear(name: str, x: np.ndarray) -> np.ndarray:
        return x @ params[name]["kernel"] + params[name]["bias"]

    taps = params["conv"]["taps"]
    padded = np.pad(linear("signal", u), ((len(taps) - 1, 0), (0, 0)))
    h, out = np.zeros((scan.heads, scan.inner // scan.heads, scan.state)), []
    for t in range(len(u)):
        signal = silu((padded[t : t + len(taps)] * taps).sum(axis=0) + params["conv"]["bias"])
        x, b, c = np.split(signal, [scan.inner, scan.inner + scan.state])
        x = x.reshape(scan.heads, -1)
        dt = np.log1p(np.exp(linear("step_size", u[t])))
        decay = np.exp(-dt * np.exp(params["log_rate"]))
        h = decay[:, None, None] * h + np.einsum("h,hp,n->hpn", dt, x, b)
        y = (h @ c + params["skip"][:, None] * x).ravel() * silu(linear("gate", u[t]))
        y = y / np.sqrt(np.mean(y**2) + 1e-6) * params["norm"]["scale"]
        out.append(linear("out", y))
    return np.stack(out)


def test_equals_the_published_layer() -> None:
    scan = SelectiveScan(
        D, heads=3, state=4, expand=2, kernel=3, branches=1, dtype=F32, rngs=nnx.Rngs(0)
    )
    u = frames(80, batch=1)
    want = published(scan, np.asarray(u.values[0], np.float64))
    np.testing.assert_allclose(nnx.jit(SelectiveScan.__call__)(scan, u)[0], want, atol=2e-5)


@pytest.mark.slow
def test_backward_scan_starts_at_the_last_real_frame() -> None:
    """In a padded batch, the second scan alone gives what it gives each trial turned round."""
    both, x = block(causal=False), frames(9)
    assert both.backward is not None
    both.forward.out.kernel[...] = jnp.zeros_like(both.forward.out.kernel[...])
    x = Sequence.from_lengths(x.values, jnp.asarray([9, 5]))
    y = whole(both, x)
    for row, length in enumerate([9, 5]):
        trial = x.values[row : row + 1, :length]
        turned = Sequence(jnp.flip(both.norm(trial), axis=1), jnp.ones((1, length), bool))
        want = trial + jnp.flip(both.backward(turned), axis=1)
        np.testing.assert_allclose(y.values[row, :length], want[0], atol=1e-5)


def test_initialisation_is_the_published_one() -> None:
    sizes = np.asarray(jax.nn.softplus(step_bias(jax.random.key(0), (20_000,), F32)))
    assert sizes.min() > 0.99e-3 and sizes.max() < 1.01e-1
    decades = (np.log10(sizes) + 3) / 2  # uniform between 0 and 1
    quantiles = np.quantile(decades, [0.1, 0.25, 0.5, 0.75, 0.9])
    np.testing.assert_allclose(quantiles, [0.1, 0.25, 0.5, 0.75, 0.9], atol=0.02)

    scan = SelectiveScan(
        32, heads=64, state=4, expand=2, kernel=4, branches=1, dtype=F32, rngs=nnx.Rngs(0)
    )
    assert scan.step_size.bias is not None
    sizes = np.asarray(jax.nn.softplus(scan.step_size.bias[...]))
    assert 0.99e-3 < sizes.min() < 3e-3 and 3e-2 < sizes.max() < 1.01e-1
    rates = np.exp(np.asarray(scan.log_rate[...]))
    assert 1.0 <= rates.min() < 3.0 and 14.0 < rates.max() <= 16.0
    assert (np.asarray(scan.skip[...]) == 1.0).all()


@pytest.mark.parametrize("causal", [True, False])
def test_every_parameter_gets_a_gradient(causal: bool) -> None:
    graph, params = nnx.split(block(causal), nnx.Param)
    x = frames(7)

    def cost(params: Any) -> jax.Array:
        y = nnx.merge(graph, params)(x, key=jax.random.key(3))
        return jnp.sum(jnp.sin(y.values))

    grads = nnx.to_pure_dict(jax.jit(jax.grad(cost))(params))
    dead = [
        jax.tree_util.keystr(path)
        for path, leaf in jax.tree.leaves_with_path(grads)
        if not np.any(np.asarray(leaf))
    ]
    assert not dead


def test_a_stream_takes_constant_memory() -> None:
    streaming = block(causal=True)
    start = streaming.initial_state(2)
    later, _ = step(streaming, start, frames(200))
    assert jax.tree.map(jnp.shape, later) == jax.tree.map(jnp.shape, start)


def test_half_precision_keeps_a_full_state() -> None:
    half, full, x = block(True, dtype=jnp.bfloat16), block(True), frames(100)
    state, y = step(half, half.initial_state(2), x)
    window, hidden = state
    assert window.values.dtype == jnp.bfloat16 and hidden.dtype == jnp.float32
    want_state, want = step(full, full.initial_state(2), x)
    np.testing.assert_allclose(y.values, want.values, atol=0.06)
    np.testing.assert_allclose(hidden, want_state[1], atol=0.06)


def test_both_directions_do_not_stream() -> None:
    both = block(causal=False)
    with pytest.raises(ValueError, match="not causal"):
        both.step(both.initial_state(2), frames(3))


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(ValueError, match="multiple of heads"):
        SelectiveScan(
            D, heads=5, state=4, expand=2, kernel=3, branches=1, dtype=F32, rngs=nnx.Rngs(0)
        )


TIME = 10
padded_scan: Callable[..., Any] = selective_scan


def scan_of(chunk: int = CHUNK) -> Callable[..., Any]:
    """The scan without padding."""

    def scan(x: Any, log_decay: Any, b: Any, c: Any, state: Any) -> Any:
        mask = jnp.ones(x.shape[:2], bool)
        return selective_scan(x, log_decay, b, c, mask, state, chunk=chunk)

    return scan


def scan_inputs(time: int = TIME) -> list[np.ndarray]:
    """x, log_decay, b, c and a first state of 2 examples, 3 heads, width 4, state 5; float64."""
    rng = np.random.default_rng(0)
    log_decay = -np.exp(rng.uniform(-5, 1, size=(2, time, 3)))
    x, b, c = (rng.normal(size=(2, time, *rest)) for rest in [(3, 4), (5,), (5,)])
    return [x, log_decay, b, c, rng.normal(size=(2, 3, 4, 5))]


def definition(*arrays: Any) -> tuple[jax.Array, jax.Array]:
    """Every frame's weight on every later one written out: no recurrence, no running sums."""
    x, log_decay, b, c, state = arrays
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
        return outputs_and_gradients(definition, [jnp.asarray(part) for part in scan_inputs()])


@pytest.mark.parametrize("chunk", [1, 4, 64])
def test_the_scan_equals_its_definition_in_chunks_of_any_size(chunk: int, truth: Any) -> None:
    scan = scan_of(chunk)
    with jax.enable_x64(True):
        found = outputs_and_gradients(scan, [jnp.asarray(part) for part in scan_inputs()])
        assert all(leaf.dtype == jnp.float64 for leaf in jax.tree.leaves((found, truth)))
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-10), found, truth)
    found = outputs_and_gradients(scan, [jnp.asarray(part, jnp.float32) for part in scan_inputs()])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), found, truth)


def test_a_sequence_in_two_parts_equals_the_whole() -> None:
    *frames, state = [jnp.asarray(part, jnp.float32) for part in scan_inputs()]
    mask = jnp.ones((2, TIME), bool)
    y, last = padded_scan(*frames, mask, state)
    first, middle = padded_scan(*(part[:, :5] for part in frames), mask[:, :5], state)
    second, end = padded_scan(*(part[:, 5:] for part in frames), mask[:, 5:], middle)
    np.testing.assert_allclose(jnp.concatenate([first, second], axis=1), y, atol=1e-5)
    np.testing.assert_allclose(end, last, atol=1e-5)


def test_padding_leaves_the_state_untouched() -> None:
    *frames, state = [jnp.asarray(part, jnp.float32) for part in scan_inputs()]
    real = np.array([0, 1, 2, 4, 5, 8])
    mask = jnp.zeros((2, TIME), bool).at[:, real].set(True)
    spoilt = [jnp.where(mask.reshape(2, TIME, *[1] * (part.ndim - 2)), part, jnp.nan)
              for part in frames]  # fmt: skip

    def scan(*arrays: jax.Array) -> Any:
        y, last = padded_scan(*arrays[:4], mask, arrays[4])
        return y[:, real], last

    def scan_real(*arrays: jax.Array) -> Any:
        return definition(*(part[:, real] for part in arrays[:4]), arrays[4])

    found = outputs_and_gradients(scan, [*spoilt, state])
    want = outputs_and_gradients(scan_real, [*frames, state])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), found, want)

    nothing = jnp.zeros_like(mask)
    assert jnp.array_equal(padded_scan(*spoilt, nothing, state)[1], state)


def test_decays_far_below_one_stay_finite() -> None:
    x, log_decay, *rest = [jnp.asarray(part, jnp.float32) for part in scan_inputs(time=70)]
    found = outputs_and_gradients(scan_of(), [x, 100.0 * log_decay, *rest])
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(found))


def test_half_precision_frames_keep_a_full_state() -> None:
    arrays = [jnp.asarray(part, jnp.float32) for part in scan_inputs()]
    x, log_decay, b, c, state = arrays
    half = [part.astype(jnp.bfloat16) for part in (x, b, c)]
    mask = jnp.ones((2, TIME), bool)
    y, last = padded_scan(half[0], log_decay, half[1], half[2], mask, state)
    assert y.dtype == last.dtype == jnp.float32
    rounded = [part.astype(jnp.float32) for part in half]
    want = definition(rounded[0], log_decay, rounded[1], rounded[2], state)
    np.testing.assert_allclose(y, want[0], atol=1e-4)
    np.testing.assert_allclose(last, want[1], atol=1e-4)
