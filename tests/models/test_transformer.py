"""The time-masked Transformer: sizes, gradients, hidden patches, a bounded past, errors."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.transformer import get_config
from modessm_jax.models.build import Functional, build, build_module
from modessm_jax.runs.load import build_shapes
from tests.models.test_multiscale import batch

SMALL = {
    "name": "transformer", "session": "affine", "smoothing": 1.0, "patch": 4, "input_dropout": 0.1,
    "d": 8, "layers": 1, "heads": 2, "ff": 16, "dropout": 0.1, "causal": True, "chunk": 4,
    "left": 16, "least_left": 4, "dtype": "float32",
}  # fmt: skip


@functools.cache
def model(**changes) -> Functional:
    built = build(SMALL | changes, channels=4, sessions=3, hides_bins=True, seed=0)
    return built._replace(apply=jax.jit(built.apply))


def count(variant: str, channels: int, sessions: int) -> int:
    params = build_shapes(get_config(variant).to_dict(), channels, sessions).params
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))


def test_the_full_sizes_are_the_published_ones() -> None:
    assert count("", 512, 45) == 9_676_788
    assert count("t12", 256, 24) == 9_380_340


def test_the_small_size_is_that_of_its_rivals() -> None:
    assert 0.75e6 < count("small", 48, 6) < 0.85e6


def test_every_parameter_receives_a_gradient() -> None:
    apply, params, *_ = model()
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


def test_all_hidden_patches_look_the_same() -> None:
    apply, params, multiple, *_ = model(causal=False)
    features, session, _ = batch()
    seen, hidden, other = (
        apply(params, features.with_values(values), session, bins).logits["phoneme"]
        for values, bins in (
            (features.values, None),
            (features.values, features.mask),
            (2 * features.values + 1, features.mask),
        )
    )
    assert multiple == 4
    assert seen.lengths.tolist() == [12, 11, 8]
    np.testing.assert_array_equal(hidden.masked().values, other.masked().values)
    assert np.abs(np.asarray(seen.values - hidden.values)).max() > 0.01


def test_how_far_it_looks_back_is_drawn_in_training() -> None:
    features, session, _ = batch()
    features = jax.tree.map(lambda leaf: leaf[:1], features)

    @functools.cache
    def gradient(left: int, least: int) -> Any:
        """Whether the last frame depends on the first bins, for a key."""
        built = build(
            SMALL
            | {"layers": 1, "left": left, "least_left": least, "smoothing": 0.0}
            | {"dropout": 0.0, "input_dropout": 0.0},
            channels=4,
            sessions=3,
            hides_bins=False,
            seed=0,
        )

        def last(values: jax.Array, key: jax.Array | None) -> jax.Array:
            found = built.apply(built.params, features.with_values(values), session[:1], None, key)
            return found.logits["phoneme"].values[:, -1].sum()

        return jax.jit(jax.grad(last))

    def reach(left: int, least: int, key: jax.Array | None) -> int:
        moved = np.asarray(gradient(left, least)(features.values, key))[0].any(axis=-1)
        return 48 - int(np.flatnonzero(moved)[0])

    assert reach(16, 4, None) == 20  # what it looks back, and the last patch itself
    found = {reach(16, 4, jax.random.key(seed)) for seed in range(30)}
    assert found == {8, 12, 16, 20}


def test_bfloat16_keeps_float32_parameters_and_logits() -> None:
    apply, params, *_ = model(dtype="bfloat16")
    features, session, _ = batch()
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    outputs = jax.eval_shape(apply, params, features, session)
    assert outputs.encoder.values.dtype == jnp.bfloat16
    assert outputs.logits["phoneme"].values.dtype == jnp.float32


def test_a_stream_keeps_the_past_that_it_looks_back_to_and_no_more() -> None:
    features, session, _ = batch()
    sizes: Any = dict(channels=4, sessions=3, hides_bins=False, seed=0)
    streaming = build_module(SMALL, **sizes)
    state = streaming.initial_state(3)
    shapes = jax.tree.map(jnp.shape, state)
    piece = jax.tree.map(lambda leaf: leaf[:, :4], features)
    new, _ = jax.eval_shape(lambda: streaming.step(state, piece, session))
    assert jax.tree.map(jnp.shape, new) == shapes
    assert state["blocks"][0].keys.shape == (3, 4, 2, 4)  # 16 bins are 4 frames
    with pytest.raises(ValueError, match="7 frames do not fill steps of 4"):
        streaming.step(state, jax.tree.map(lambda leaf: leaf[:, :7], features), session)
    offline = build_module(SMALL | {"causal": False}, **sizes)
    with pytest.raises(ValueError, match=r"model\.causal"):
        offline.step({}, piece, session)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layers": 0}, "layers = 0: give at least 1"),
        ({"heads": 3}, "d = 8 is not a multiple of heads = 3"),
        ({"chunk": 6}, "chunk = 6 to be at least 1 and a multiple of patch = 4"),
        ({"left": 18}, "left = 18 and least_left = 4 to be multiples of chunk"),
        ({"least_left": 20}, "least_left = 20 is more than left = 16"),
    ],
)
def test_configs_that_do_not_fit(changes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        model(**changes)
