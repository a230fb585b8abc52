"""The official baseline: sizes, gradients, frames, streaming, errors; and the recurrence itself."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.gru import get_config
from modessm_jax.blocks.lookahead import Patches, smoothing_taps
from modessm_jax.blocks.recurrent import recur
from modessm_jax.models.build import Functional, build, build_module
from modessm_jax.runs.load import build_shapes
from tests.blocks.contract import difference
from tests.models.test_multiscale import batch

SMALL = {
    "name": "gru", "session": "affine", "smoothing": 1.0, "taps": 0, "input_dropout": 0.1,
    "patch": 6, "stride": 4, "d": 8, "layers": 2, "dropout": 0.1, "bidirectional": False,
    "dtype": "float32",
}  # fmt: skip


@functools.cache
def model(**changes) -> Functional:
    built = build(SMALL | changes, channels=4, sessions=3, hides_bins=True, seed=0)
    return built._replace(apply=jax.jit(built.apply))


def count(variant: str, channels: int, sessions: int) -> int:
    params = build_shapes(get_config(variant).to_dict(), channels, sessions).params
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))


def test_the_full_sizes_are_the_published_ones() -> None:
    assert count("", 512, 45) == 44_315_177  # of Brain-to-Text '25
    # 135,424,041 of Brain-to-Text '24, of which 1,579,008 are never used, and its authors begin
    # with zeros in place of a learned state.
    assert count("t12", 256, 24) == 135_424_041 - 1_579_008 + 1024


def test_the_small_size_is_that_of_its_rivals() -> None:
    assert 0.75e6 < count("small", 48, 6) < 0.85e6


@pytest.mark.parametrize("bidirectional", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_every_parameter_receives_a_gradient(bidirectional: bool) -> None:
    apply, params, *_ = model(bidirectional=bidirectional)
    features, session, _ = batch()
    hidden = (jnp.arange(48) % 5 == 0)[None, :] & features.mask

    def scalar(params: Any) -> jax.Array:
        logits = apply(params, features, session, hidden).logits["phoneme"]
        return jnp.square(logits.masked().values).sum()

    gradient = jax.jit(jax.grad(scalar))(params)
    dead = [
        jax.tree_util.keystr(path)
        for path, leaf in jax.tree.leaves_with_path(gradient)
        if not np.any(np.asarray(leaf))
    ]
    assert dead == []


@pytest.mark.parametrize("reverse", [False, True])
def test_the_recurrence_is_that_of_its_equations(reverse: bool) -> None:
    """Values and gradients, against a loop that JAX differentiates by itself."""
    d, time, rows = 3, 5, 2
    draw = np.random.default_rng(0)

    def random(*shape: int) -> jax.Array:
        return jnp.asarray(draw.standard_normal(shape, np.float32))

    mask = jnp.asarray([[True, True]] * 3 + [[True, False]] * 2)
    arguments = random(time, rows, 3 * d), random(d, 3 * d), random(3 * d), random(rows, d)

    def by_loop(inputs, kernel, bias, state):
        states = [state] * time
        for t in reversed(range(time)) if reverse else range(time):
            recurrent = state @ kernel + bias[None]
            of_input, of_state = jnp.split(inputs[t], 3, -1), jnp.split(recurrent, 3, -1)
            r = 1 / (1 + jnp.exp(-of_input[0] - of_state[0]))
            z = 1 / (1 + jnp.exp(-of_input[1] - of_state[1]))
            n = jnp.tanh(of_input[2] + r * of_state[2])
            state = jnp.where(mask[t][:, None], (1 - z) * n + z * state, state)
            states[t] = state
        return jnp.stack(states)

    def at_once(inputs, kernel, bias, state):
        return recur(inputs, mask, kernel, bias, state, reverse)

    weights = random(time, rows, d)

    @functools.partial(jax.jit, static_argnums=0)
    def pull(function, *arguments):
        def scalar(*arguments):
            states = function(*arguments)
            return (weights * states).sum(), states

        return jax.grad(scalar, argnums=(0, 1, 2, 3), has_aux=True)(*arguments)

    assert difference(pull(at_once, *arguments), pull(by_loop, *arguments)) < 1e-6


def test_a_frame_needs_all_bins_of_its_patch() -> None:
    apply, params, multiple, *_ = model()
    features, session, _ = batch()
    outputs = apply(params, features, session)
    assert multiple == 4
    # (48 - 6) // 4 + 1 and so on; the array has a frame for every stride, as for all models.
    assert outputs.logits["phoneme"].lengths.tolist() == [11, 9, 7]
    assert outputs.logits["phoneme"].values.shape[1] == 12
    assert outputs.diagnostics["norm/gru"].shape == (3,)


def test_bfloat16_keeps_float32_parameters_states_and_logits() -> None:
    apply, params, *_ = model(dtype="bfloat16")
    features, session, _ = batch()
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    outputs = apply(params, features, session)
    assert outputs.encoder.values.dtype == jnp.bfloat16
    assert outputs.logits["phoneme"].values.dtype == jnp.float32
    exact = model().apply(params, features, session).logits["phoneme"].masked().values
    np.testing.assert_allclose(outputs.logits["phoneme"].masked().values, exact, atol=0.1)


def test_dropout_is_drawn_for_each_frame() -> None:
    apply, params, *_ = model(input_dropout=0.5, dropout=0.0)
    features, session, _ = batch()
    first, second, third = (
        apply(params, features, session, None, key).logits["phoneme"].values
        for key in (None, None, jax.random.key(1))
    )
    assert jnp.array_equal(first, second)
    assert not jnp.array_equal(first, third)


def test_only_one_direction_streams_and_by_whole_strides() -> None:
    features, session, _ = batch()
    sizes: Any = dict(channels=4, sessions=3, hides_bins=False, seed=0)
    streaming = build_module(SMALL, **sizes)
    piece = jax.tree.map(lambda leaf: leaf[:, :7], features)
    with pytest.raises(ValueError, match="7 frames do not fill steps of 4"):
        streaming.step(streaming.initial_state(3), piece, session)
    assert streaming.delay == 2  # 2 bins of the patch, 2 bins of the filter, a stride for each
    both_ways = build_module(SMALL | {"bidirectional": True}, **sizes)
    with pytest.raises(ValueError, match=r"model\.bidirectional"):
        both_ways.step({}, piece, session)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"patch": 3}, "patch of 3 bins skips bins at stride 4"),
        ({"layers": 0}, "layers = 0: give at least 1"),
        ({"smoothing": 50.0}, "smoothing = 50.0: every tap of it is below 0.01"),
        ({"input_dropout": 1.0}, "model.input_dropout = 1.0: .*below 1"),
    ],
)
def test_configs_that_do_not_fit(changes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        model(**changes)


def test_smoothing_has_the_taps_of_the_benchmarks() -> None:
    assert smoothing_taps(0.0) == (1.0,)
    taps = smoothing_taps(2.0)
    assert len(taps) == 9 and math.isclose(sum(taps), 1.0)
    assert math.isclose(taps[0] / taps[4], math.exp(-2.0))
    taps = smoothing_taps(2.0, 20)
    assert len(taps) == 20 and math.isclose(sum(taps), 1.0)
    assert math.isclose(taps[9], taps[10]) and taps[8] < taps[9] > taps[19]


def test_a_patch_begins_with_its_first_bin() -> None:
    features, _, _ = batch()
    patches = Patches(4, 6, 4, whole=True, dtype=jnp.float32)(features)
    np.testing.assert_array_equal(
        patches.values[0, 2], np.asarray(features.values[0, 8:14]).reshape(-1)
    )
