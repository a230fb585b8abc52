"""The door out of `models/`: pure functions of a plain tree, and refusals in plain words."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from modessm_jax.blocks.block import REMAT
from modessm_jax.models.build import MODELS, Functional, build, build_module
from tests.models import (
    test_gru,
    test_modessm,
    test_multiscale,
    test_single_scale,
    test_transformer,
)
from tests.models.test_multiscale import batch

CONFIGS = {
    "multiscale": test_multiscale.SMALL,
    "conformer": test_single_scale.SMALL,
    "modessm": test_modessm.SMALL,
    "gru": test_gru.SMALL,
    "transformer": test_transformer.SMALL,
}
# What is fast is of two models that compile fast; the others have their turn with the slow tests.
FAST = ("gru", "transformer")
NAMES = [name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in CONFIGS]
SIZES = dict(channels=4, sessions=3, seed=0)


@functools.cache
def made(name: str, hides_bins: bool = True) -> Functional:
    model = build(CONFIGS[name], hides_bins=hides_bins, **SIZES)
    return model._replace(apply=jax.jit(model.apply, static_argnames=("modes",)))


def test_every_model_is_tried_here() -> None:
    assert set(MODELS) == set(CONFIGS)


@pytest.mark.parametrize("name", NAMES)
def test_the_function_is_what_the_module_does(name: str) -> None:
    features, session, _ = batch()
    hidden = (jnp.arange(48) % 5 == 0)[None, :] & features.mask
    module = build_module(CONFIGS[name], hides_bins=True, **SIZES)
    expected = nnx.jit(type(module).__call__)(module, features, session, hidden=hidden)
    model = made(name)
    found = model.apply(model.params, features, session, hidden)
    np.testing.assert_array_equal(found.logits["phoneme"].values, expected.logits["phoneme"].values)
    assert model.multiple == module.block_size


@pytest.mark.parametrize("name", NAMES)
def test_parameters_are_a_plain_tree_that_the_seed_alone_decides(name: str) -> None:
    model = made(name)
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(model.params))
    assert isinstance(model.params, dict)
    state = nnx.state(build_module(CONFIGS[name], hides_bins=True, **SIZES), nnx.Param)
    jax.tree.map(np.testing.assert_array_equal, model.params, nnx.to_pure_dict(state))
    other = build(CONFIGS[name], hides_bins=True, **SIZES | {"seed": 1}).params
    same = jax.tree.map(lambda a, b: bool((a == b).all()), model.params, other)
    assert not all(jax.tree.leaves(same))


@pytest.mark.parametrize("name", NAMES)
def test_bins_are_hidden_only_from_a_model_built_for_it(name: str) -> None:
    features, session, _ = batch()
    for hides_bins in (True, False):
        model = made(name, hides_bins)
        params = jax.tree.map(lambda leaf: leaf + 0.1, model.params)  # the vector begins at zero
        seen, hidden = (
            model.apply(params, features, session, bins).logits["phoneme"].values
            for bins in (None, features.mask)
        )
        assert jnp.array_equal(seen, hidden) != hides_bins


def test_only_a_transducer_has_a_predictor() -> None:
    assert made("multiscale").predict is None
    assert made("modessm").predict is not None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"name": "rnn"},
            r"'rnn': choose one of \['conformer', 'gru', 'modessm', 'multiscale', 'transformer'\]",
        ),
        ({"layer": 3}, "config.model does not fit multiscale: .*layer"),
    ],
)
def test_configs_that_name_what_is_not_there(changes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(CONFIGS["multiscale"] | changes, hides_bins=True, **SIZES)


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize(
    ("key", "value", "need"),
    [
        *(("dtype", name, "float32, bfloat16") for name in ("float64", "float16", "int32", "half")),
        ("dropout", 1.0, "below 1"),
        ("stochastic_depth", -0.1, "0 or more"),
        ("d", 0, "1 or more"),
        ("heads", -1, "1 or more"),
        ("smoothing", float("nan"), "0 or more"),
        ("head_scale", -1.0, "0 or more"),
    ],
)
def test_values_to_compute_nothing_with_are_refused_by_name(name, key, value, need) -> None:
    config = {**CONFIGS[name], key: value}
    with pytest.raises(ValueError, match=rf"^model.{key} = .*{need}"):
        build(config, hides_bins=True, **SIZES)


@pytest.mark.parametrize(("key", "value"), [("strides", (0, 2, 4)), ("layers", (-1, 1, 1))])
def test_each_of_several_sizes_is_looked_at(key, value) -> None:
    with pytest.raises(ValueError, match=rf"^model.{key} = "):
        build({**CONFIGS["multiscale"], key: value}, hides_bins=True, **SIZES)


def test_what_a_model_does_not_take_is_refused_by_name() -> None:
    features, session, labels = batch()
    model = made("multiscale")
    with pytest.raises(ValueError, match="'multiscale': this model takes no labels, modes"):
        model.apply(model.params, features, session, modes=2, labels=labels.values)


@pytest.mark.slow
@pytest.mark.parametrize("name", CONFIGS)
def test_computing_values_again_changes_no_gradient(name: str) -> None:
    features, session, _ = batch()
    wanted = None
    for remat in REMAT:
        model = build({**CONFIGS[name], "remat": remat}, hides_bins=False, **SIZES)

        @jax.jit
        def gradient(params: Any, apply: Any = model.apply) -> Any:
            def loss(params: Any) -> Any:
                outputs = apply(params, features, session, None, jax.random.key(1))
                return (jnp.sin(outputs.logits["phoneme"].values) ** 2).sum()

            return jax.grad(loss)(params)

        found = gradient(model.params)
        wanted = found if wanted is None else wanted
        for leaf, expected in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
            scale = max(float(jnp.abs(expected).max()), 1.0)
            np.testing.assert_allclose(leaf, expected, atol=1e-6 * scale, rtol=0)
