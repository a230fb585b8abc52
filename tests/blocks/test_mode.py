"""The mode head is blind to padding and streams; FiLM starts as nothing, and modes part ways."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from modessm_jax.blocks.block import Block
from modessm_jax.blocks.mode import PRIOR_FRAMES, FiLM, ModeHead
from modessm_jax.losses.cost import Cost
from modessm_jax.losses.mode import marginal_cost
from modessm_jax.sequence import Sequence
from tests.blocks.contract import verify

F32 = jnp.float32
D, MODES = 4, 3

rows_of = nnx.jit(ModeHead.__call__)


def head(causal: bool, modes: int = MODES, dtype: Any = F32) -> ModeHead:
    return ModeHead(D, modes=modes, hidden=5, causal=causal, dtype=dtype, rngs=nnx.Rngs(0))


class Rows(Block):
    """The mode head as a block: each frame is given the row that holds for it."""

    def __init__(self, causal: bool):
        self.head = head(causal)
        self.back, self.ahead = None, 0 if causal else None

    def __call__(self, x: Sequence, *, key: jax.Array | None = None) -> Sequence:
        rows = self.head(x)
        return x.with_values(jnp.broadcast_to(rows, (*x.mask.shape, MODES)))

    def initial_state(self, batch: int) -> Any:
        return self.head.initial_state(batch)

    def step(self, state: Any, x: Sequence) -> tuple[Any, Sequence]:
        state, rows = self.head.step(state, x)
        return state, x.with_values(rows)


@pytest.mark.parametrize("causal", [True, False])
def test_head(causal: bool) -> None:
    verify(Rows(causal), D)


def trials(lengths: list[int], level: float = 0.0, spread: float = 1.0) -> Sequence:
    shape = (len(lengths), max(lengths), D)
    values = np.random.default_rng(0).normal(level, spread, size=shape)
    return Sequence.from_lengths(jnp.asarray(values, F32), jnp.asarray(lengths))


def test_equals_the_definition() -> None:
    block, x = head(causal=False), trials([30])
    values = np.asarray(x.values[0], np.float64)
    mean = values.sum(axis=0) / (30 + PRIOR_FRAMES)
    square = ((values**2).sum(axis=0) + PRIOR_FRAMES) / (30 + PRIOR_FRAMES)
    seen = np.concatenate([mean, 0.5 * np.log(square - mean**2)])
    params = jax.tree.map(np.asarray, nnx.to_pure_dict(nnx.state(block, nnx.Param)))
    hidden = seen @ params["hidden"]["kernel"] + params["hidden"]["bias"]
    hidden = hidden / (1 + np.exp(-hidden))
    logits = hidden @ params["out"]["kernel"] + params["out"]["bias"]
    want = logits - np.log(np.exp(logits).sum())
    found = rows_of(block, x)
    assert found.shape == (1, 1, MODES)
    np.testing.assert_allclose(found[0, 0], want, atol=1e-5)
    np.testing.assert_allclose(rows_of(head(causal=True), x)[0, -1], want, atol=1e-5)


def test_a_stream_ends_with_the_prior_of_the_whole_trial() -> None:
    x = trials([4, 9, 12])
    whole, streamed = (head(causal)(x)[:, -1] for causal in (False, True))
    np.testing.assert_allclose(whole, streamed, rtol=1e-5, atol=1e-6)
    graph, params = nnx.split(head(True), nnx.Param)
    stream = nnx.merge(graph, params)
    first, rest = (jax.tree.map(lambda leaf, s=s: leaf[:, s], x) for s in (slice(5), slice(5, 12)))
    state, _ = stream.step(stream.initial_state(3), first)
    _, rows = stream.step(state, rest)
    np.testing.assert_allclose(rows[:, -1], whole, rtol=1e-5, atol=1e-6)


def test_trials_differ_from_the_start_and_no_trial_is_certain() -> None:
    for lengths in ([1, 1], [40, 40], [700, 500]):
        rows = np.exp(rows_of(head(causal=False), trials(lengths, level=5.0, spread=3.0)))
        np.testing.assert_allclose(rows.sum(axis=-1), 1.0, rtol=1e-5)
        assert rows.min() > 0.01
        assert np.abs(rows[0] - rows[1]).max() > 1e-4


def test_an_empty_trial_has_finite_rows_and_gradients() -> None:
    block, x = head(causal=False), trials([5, 0])
    pull = jax.jit(jax.value_and_grad(lambda values: block(x.with_values(values)).sum()))
    value, gradient = pull(x.values)
    assert np.isfinite(value) and np.isfinite(gradient).all()


def test_half_precision_keeps_full_sums_and_rows() -> None:
    half, x = head(True, dtype=jnp.bfloat16), trials([300])
    state, rows = half.step(half.initial_state(1), x)
    assert rows.dtype == F32 and all(part.dtype == F32 for part in state)
    np.testing.assert_allclose(rows, rows_of(head(True), x), atol=0.05)


def test_a_mode_of_the_whole_trial_does_not_stream() -> None:
    block = head(causal=False)
    with pytest.raises(ValueError, match="not causal"):
        block.step(block.initial_state(1), trials([2]))


def test_one_mode_is_no_mode() -> None:
    with pytest.raises(ValueError, match="modes is 1"):
        head(causal=True, modes=1)


def film(seed: int | None) -> FiLM:
    """As it starts, or with random scales and shifts."""
    module = FiLM(D, modes=MODES, dtype=F32)
    if seed is not None:
        rng = np.random.default_rng(seed)
        for of_mode in (module.scale, module.shift):
            of_mode[...] = jnp.asarray(rng.normal(size=(MODES, D)), F32)
    return module


def test_film_starts_as_the_identity() -> None:
    x = trials([6, 3])
    z = jax.nn.softmax(jax.random.normal(jax.random.key(0), (2, 1, MODES)))
    np.testing.assert_array_equal(film(None)(x, z).values, x.values)


def test_film_is_the_scale_and_shift_of_the_mode() -> None:
    module, x = film(0), trials([6, 3])
    scale, shift = np.asarray(module.scale[...]), np.asarray(module.shift[...])
    z = np.array([[0, 2, 2, 1, 0, 1], [1, 1, 0, 2, 2, 2]])
    want = np.asarray(x.values) * (1 + scale[z]) + shift[z]
    by_frame = module(x, jax.nn.one_hot(jnp.asarray(z), MODES))
    np.testing.assert_allclose(by_frame.values, want, rtol=1e-5, atol=1e-6)
    weights = np.array([[[0.2, 0.5, 0.3]], [[0.0, 0.9, 0.1]]], np.float32)
    want = np.asarray(x.values) * (1 + weights @ scale) + weights @ shift
    by_trial = module(x, jnp.asarray(weights))
    np.testing.assert_allclose(by_trial.values, want, rtol=1e-5, atol=1e-6)


# A task of two modes: the level of the features gives the mode, and the target is a scale and shift
# of them that differs between the modes.


def task(key: jax.Array, batch: int = 32, time: int = 20) -> tuple[Any, Sequence, jax.Array]:
    of_mode, of_noise = jax.random.split(key)
    mode = jax.random.bernoulli(of_mode, 0.5, (batch,)).astype(int)
    level = jnp.asarray([[0.0, 0.5, 0.0, -0.5], [0.5, 0.0, -0.5, 0.0]])[mode][:, None, :]
    x = jax.random.normal(of_noise, (batch, time, D)) + level
    gain = jnp.asarray([0.5, 1.5])[mode][:, None, None]
    return mode, Sequence(x, jnp.ones((batch, time), bool)), gain * x


def modes_cost(model: Any, x: Sequence, target: jax.Array, posterior: bool = True) -> jax.Array:
    """Mean marginal cost of Gaussian targets."""
    rows = model["head"](x)[:, 0] if posterior else jnp.full((x.mask.shape[0], 2), -jnp.log(2.0))
    nats = []
    for mode in range(2):
        z = jnp.broadcast_to(jax.nn.one_hot(mode, 2)[None, None], (x.mask.shape[0], 1, 2))
        nats.append(0.5 * jnp.sum((model["film"](x, z).values - target) ** 2, axis=(1, 2)))
    costs = jnp.stack(nats, axis=1)
    return marginal_cost(Cost(costs, jnp.ones(costs.shape, bool)), rows).nats.mean()


def two_modes() -> Any:
    return nnx.Dict(head=head(False, modes=2), film=FiLM(D, modes=2, dtype=F32))


def test_alike_modes_stay_alike_without_the_head() -> None:
    """The saddle: under a posterior that is the same for all trials no gradient parts the modes."""
    graph, params = nnx.split(two_modes(), nnx.Param)
    _, x, target = task(jax.random.key(0))
    for posterior, apart in ((False, False), (True, True)):

        def cost(params: Any, posterior: bool = posterior) -> jax.Array:
            return modes_cost(nnx.merge(graph, params), x, target, posterior)

        scale = np.asarray(jax.jit(jax.grad(cost))(params)["film"]["scale"][...])
        ratio = scale[0] / scale[1]
        assert (np.ptp(ratio) > 1e-2) == apart, ratio


def test_modes_specialise() -> None:
    graph, params = nnx.split(two_modes(), nnx.Param)
    optimizer = optax.adam(0.03)

    @jax.jit
    def train(params: Any) -> tuple[Any, jax.Array]:
        def update(carry: Any, key: jax.Array) -> tuple[Any, jax.Array]:
            params, moments = carry
            _, x, target = task(key)
            value, grads = jax.value_and_grad(
                lambda params: modes_cost(nnx.merge(graph, params), x, target)
            )(params)
            updates, moments = optimizer.update(grads, moments, params)
            return (optax.apply_updates(params, updates), moments), value

        keys = jax.random.split(jax.random.key(1), 100)
        (params, _), values = jax.lax.scan(update, (params, optimizer.init(params)), keys)
        return params, values

    params, values = train(params)
    model = nnx.merge(graph, params)
    mode, x, _ = task(jax.random.key(2), batch=200)
    inferred = np.asarray(rows_of(model["head"], x)[:, 0].argmax(axis=-1))
    agreement = np.mean(inferred == np.asarray(mode))
    assert max(agreement, 1 - agreement) > 0.95
    scale = np.sort(np.asarray(model["film"].scale[...]).mean(axis=1))
    np.testing.assert_allclose(scale, [-0.5, 0.5], atol=0.1)
    assert values[-1] < 0.2 * values[0]
