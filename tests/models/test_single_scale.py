"""The single-scale decoder: gradients, heads, frames, errors."""

import functools
import math

import jax
import numpy as np
import pytest

from configs.conformer import get_config
from modessm_jax.models.build import Functional, build, build_module
from modessm_jax.runs.load import build_shapes
from tests.models.test_multiscale import batch, loss

SMALL = {
    "name": "conformer", "d": 8, "layers": 1, "heads": 2, "ff": 8, "kernel": 3, "stride": 4,
    "patch": 8, "dropout": 0.1, "stochastic_depth": 0.2, "session": "affine", "smoothing": 1.0,
    "interctc": True, "head_scale": 1.0, "causal": False, "chunk": 8, "left": 8,
    "dtype": "float32",
}  # fmt: skip


@functools.cache
def model(**changes) -> Functional:
    built = build(SMALL | changes, channels=4, sessions=3, hides_bins=True, seed=0)
    return built._replace(apply=jax.jit(built.apply))


@pytest.mark.slow
def test_the_small_size_is_that_of_its_rivals() -> None:
    params = build_shapes(get_config("small").to_dict(), 48, 6).params
    assert 0.75e6 < sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params)) < 0.85e6


@pytest.mark.slow
def test_every_parameter_receives_a_gradient_and_keys_turn_on_dropout() -> None:
    apply, params, multiple, *_ = model()
    assert multiple == 4
    value = jax.jit(jax.value_and_grad(lambda p, key: loss(apply, p, *batch(), key)))
    (first, gradient), (second, _) = (value(params, jax.random.key(seed)) for seed in (0, 1))
    assert first != second
    dead = [
        jax.tree_util.keystr(path)
        for path, leaf in jax.tree.leaves_with_path(gradient)
        if not np.any(np.asarray(leaf))
    ]
    assert dead == []


def test_both_heads_have_a_frame_for_every_stride_begun() -> None:
    features, session, _ = batch()
    built = model()
    outputs = jax.eval_shape(built.apply, built.params, features, session)
    assert {name: x.values.shape for name, x in outputs.logits.items()} == {
        "phoneme": (3, 12, 41),
        "interctc": (3, 12, 41),
    }
    assert set(outputs.diagnostics) == {"norm/lower", "norm/upper"}


def test_only_a_causal_model_steps() -> None:
    module = build_module(SMALL, channels=4, sessions=3, hides_bins=False, seed=0)
    with pytest.raises(ValueError, match=r"model\.causal"):
        module.step({}, *batch()[:2])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layers": 0}, "layers = 0: give at least 1"),
        ({"causal": True, "chunk": 6}, "chunk = 6 to be at least 1 and a multiple of stride = 4"),
        ({"causal": True, "left": 12}, "left = 12 to be a multiple of chunk"),
    ],
)
def test_configs_that_do_not_fit(changes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        model(**changes)
