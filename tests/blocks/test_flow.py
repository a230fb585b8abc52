"""The flow bridge starts as nothing, learns every parameter, and carries damage towards clean."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from modessm_jax.blocks.flow import EULER_STEPS, FlowBridge
from modessm_jax.losses.auxiliary import flow_cost
from modessm_jax.sequence import Sequence

F32 = jnp.float32
D = 8

whole = nnx.jit(FlowBridge.__call__)
velocity = nnx.jit(FlowBridge.velocity)
training_pair = nnx.jit(FlowBridge.training_pair)


def bridge(causal: bool, kernel: int = 3, dtype: Any = F32) -> FlowBridge:
    return FlowBridge(D, layers=2, kernel=kernel, causal=causal, dtype=dtype, rngs=nnx.Rngs(0))


def frames(seed: int, lengths: tuple[int, ...] = (9, 6)) -> Sequence:
    values = jax.random.normal(jax.random.key(seed), (len(lengths), 9, D))
    return Sequence.from_lengths(values, jnp.asarray(lengths))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_it_starts_as_the_identity(dtype: Any) -> None:
    x = frames(0)
    x = x.with_values(x.values.astype(dtype)).masked()
    y = whole(bridge(causal=False, dtype=dtype), x)
    assert y.values.dtype == dtype
    np.testing.assert_array_equal(y.values.astype(F32), x.values.astype(F32))


def test_a_constant_velocity_is_followed_to_its_end() -> None:
    """Four steps make the whole way, not more and not less."""
    module, x = bridge(causal=False), frames(0)
    assert module.out.bias is not None
    module.out.bias[...] = jnp.arange(float(D))
    want = np.asarray(x.masked().values + jnp.arange(float(D))[None, None, :])
    np.testing.assert_allclose(whole(module, x).values, want, rtol=1e-6, atol=1e-6)


def test_each_euler_step_starts_where_the_last_ended() -> None:
    module, h0 = bridge(causal=False), frames(0, (9, 9))
    module.out.kernel[...] = jax.random.normal(jax.random.key(1), (D, D))
    x = h0
    for index in range(EULER_STEPS):
        moved = velocity(module, x, jnp.full((2,), index / EULER_STEPS), h0)
        x = x.with_values(x.values + moved.values / EULER_STEPS)
    np.testing.assert_allclose(whole(module, h0).values, x.values, rtol=1e-5, atol=1e-5)


def test_the_velocity_depends_on_the_point_the_time_and_the_start() -> None:
    module, x, h0 = bridge(causal=False), frames(0), frames(1)
    module.out.kernel[...] = jax.random.normal(jax.random.key(1), (D, D))
    t = jnp.asarray([0.2, 0.7])
    before = velocity(module, x, t, h0).values
    for other in (
        velocity(module, frames(2), t, h0),
        velocity(module, x, t.at[0].set(0.3), h0),
        velocity(module, x, t, frames(2)),
    ):
        assert jnp.abs(other.values - before)[0].max() > 1e-3


def test_the_target_is_the_way_from_corrupted_to_clean() -> None:
    h0, h1 = frames(0, (9, 6)), frames(1, (8, 6))
    start, end = (h.with_values(jnp.where(h.mask[..., None], h.values, jnp.nan)) for h in (h0, h1))
    predicted, target = training_pair(bridge(causal=False), start, end, jax.random.key(0))
    both = np.asarray(h0.mask & h1.mask)
    for part in (predicted, target):
        np.testing.assert_array_equal(part.mask, both)
        assert part.values.dtype == F32
    np.testing.assert_allclose(
        np.asarray(target.values)[both], np.asarray(h1.values - h0.values)[both], rtol=1e-6
    )
    assert (predicted.values == 0).all()


def test_every_example_has_a_time_of_its_own() -> None:
    """Two equal examples are asked for the velocity at different points of the same way."""
    module = bridge(causal=False)
    module.out.kernel[...] = jax.random.normal(jax.random.key(1), (D, D))
    h0, h1 = (jax.tree.map(lambda x: x[jnp.asarray([0, 0])], frames(seed)) for seed in (0, 1))
    first, _ = training_pair(module, h0, h1, jax.random.key(0))
    again, _ = training_pair(module, h0, h1, jax.random.key(0))
    other, _ = training_pair(module, h0, h1, jax.random.key(1))
    np.testing.assert_array_equal(first.values, again.values)
    assert jnp.abs(first.values - other.values).max() > 1e-3
    assert jnp.abs(first.values[0] - first.values[1]).max() > 1e-3


def test_no_gradient_reaches_the_features() -> None:
    module = bridge(causal=False)
    module.out.kernel[...] = jax.random.normal(jax.random.key(1), (D, D))

    def cost(a: jax.Array, b: jax.Array) -> jax.Array:
        h0, h1 = frames(0).with_values(a), frames(0).with_values(b)
        return flow_cost(*module.training_pair(h0, h1, jax.random.key(0))).nats.sum()

    for gradient in jax.jit(jax.grad(cost, argnums=(0, 1)))(frames(0).values, frames(1).values):
        assert (gradient == 0).all()


def test_every_parameter_gets_a_gradient_after_the_first_update() -> None:
    graph, params = nnx.split(bridge(causal=True), nnx.Param)

    @jax.jit
    def pull(params: Any) -> Any:
        def cost(params: Any) -> jax.Array:
            pair = nnx.merge(graph, params).training_pair(frames(0), frames(1), jax.random.key(0))
            return flow_cost(*pair).nats.sum()

        return jax.grad(cost)(params)

    def dead(grads: Any) -> set[str]:
        leaves = jax.tree.leaves_with_path(nnx.to_pure_dict(grads))
        return {jax.tree_util.keystr(path) for path, leaf in leaves if not np.any(leaf)}

    first = pull(params)
    assert not {"['out']['kernel']", "['out']['bias']"} & dead(first)
    updated = jax.tree.map(lambda p, g: p - 0.1 * g, params, first)
    assert not dead(pull(updated))


def test_looking_ahead_does_not_stream() -> None:
    module = bridge(causal=False, kernel=5)
    with pytest.raises(ValueError, match="16 frames ahead"):
        module.step(module.initial_state(2), frames(0))


def damaged(key: jax.Array, batch: int = 16, time: int = 24) -> tuple[Sequence, Sequence]:
    """Noisy features with silent channels, and the clean ones: two slow waves, mixed."""
    of_phase, of_noise, of_dropped = jax.random.split(key, 3)
    phase = 6.28 * jax.random.uniform(of_phase, (batch, 1, 2))
    waves = jnp.sin(phase + jnp.asarray([[[0.3, 0.5]]]) * jnp.arange(time)[None, :, None])
    mix = jnp.asarray(np.random.default_rng(0).normal(size=(2, D)), F32)
    clean = jnp.einsum("btk,kd->btd", waves, mix)
    noisy = clean + 0.7 * jax.random.normal(of_noise, clean.shape)
    noisy = noisy * jax.random.bernoulli(of_dropped, 0.8, (batch, 1, D))
    mask = jnp.ones((batch, time), bool)
    return Sequence(noisy, mask), Sequence(clean, mask)


@pytest.mark.slow
def test_corrupted_points_are_carried_towards_clean_ones() -> None:
    graph, params = nnx.split(bridge(causal=True), nnx.Param)
    optimizer = optax.adam(5e-3)

    @jax.jit
    def train(params: Any) -> Any:
        def update(carry: Any, key: jax.Array) -> tuple[Any, None]:
            params, moments = carry
            of_data, of_time = jax.random.split(key)
            h0, h1 = damaged(of_data)

            def cost(params: Any) -> jax.Array:
                pair = nnx.merge(graph, params).training_pair(h0, h1, of_time)
                return flow_cost(*pair).nats.mean()

            updates, moments = optimizer.update(jax.grad(cost)(params), moments, params)
            return (optax.apply_updates(params, updates), moments), None

        keys = jax.random.split(jax.random.key(1), 200)
        return jax.lax.scan(update, (params, optimizer.init(params)), keys)[0][0]

    h0, h1 = damaged(jax.random.key(2), batch=64)
    before = jnp.mean((h0.values - h1.values) ** 2)
    denoised = nnx.merge(graph, train(params))(h0)
    assert jnp.mean((denoised.values - h1.values) ** 2) < 0.5 * before
