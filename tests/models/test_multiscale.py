"""The complete decoder: gradients, precision, streaming, errors; diphones summed to phonemes."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modessm_jax.losses.auxiliary import diphone_labels
from modessm_jax.losses.ctc import ctc_cost
from modessm_jax.models.build import Functional, build, build_module
from modessm_jax.models.multiscale import phoneme_log_probabilities
from modessm_jax.phonemes import CLASSES, DIPHONES
from modessm_jax.sequence import Sequence

SMALL = {
    "name": "multiscale", "d": 8, "layers": (1, 1, 1), "heads": 2, "ff": 8, "kernel": 3,
    "strides": (2, 4, 8), "patches": (4, 8, 8), "dropout": 0.1, "stochastic_depth": 0.2,
    "session": "affine", "fusion_norm": True, "smoothing": 1.0, "interctc": True,
    "diphones": False, "head_scale": 1.0, "causal": False, "chunk": 8, "left": 8,
    "dtype": "float32",
}  # fmt: skip


@functools.cache
def model(**changes) -> Functional:
    built = build(SMALL | changes, channels=4, sessions=3, hides_bins=True, seed=0)
    return built._replace(apply=jax.jit(built.apply))


def batch() -> tuple[Sequence, jax.Array, Sequence]:
    values = jax.random.normal(jax.random.key(0), (3, 48, 4))
    features = Sequence.from_lengths(values, jnp.asarray([48, 41, 30]))
    ids = jnp.asarray([[3, 3, 40], [7, 40, 0], [5, 0, 0]])
    return features, jnp.arange(3), Sequence(ids, ids > 0)


def loss(apply, params, features, session, labels, key=None):
    hidden = (jnp.arange(48) % 5 == 0)[None, :] & features.mask
    outputs = apply(params, features, session, hidden, key)
    costs = [ctc_cost(logits, labels).nats for logits in outputs.logits.values()]
    return jnp.stack(costs).sum()


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"causal": True, "session": "layernorm", "fusion_norm": False},
    ],
)
def test_every_parameter_receives_a_gradient(changes) -> None:
    apply, params, *_ = model(**changes)
    gradient = jax.jit(jax.grad(lambda p: loss(apply, p, *batch())))(params)
    dead = [
        jax.tree_util.keystr(path)
        for path, leaf in jax.tree.leaves_with_path(gradient)
        if not np.any(np.asarray(leaf))
    ]
    assert dead == []


@pytest.mark.slow
def test_a_diphone_head_is_summed_to_phonemes() -> None:
    apply, params, *_ = model(diphones=True)
    features, session, labels = batch()
    logits = apply(params, features, session).logits
    assert logits["diphone"].values.shape[-1] == DIPHONES
    np.testing.assert_array_equal(
        logits["phoneme"].values, phoneme_log_probabilities(logits["diphone"].values)
    )
    gradient = jax.grad(
        lambda p: ctc_cost(
            apply(p, features, session).logits["diphone"], diphone_labels(labels)
        ).nats.sum()
    )(params)
    assert np.any(np.asarray(gradient["head"]["kernel"]))


@pytest.mark.slow
def test_bfloat16_keeps_float32_parameters_and_logits() -> None:
    apply, params, *_ = model(dtype="bfloat16")
    features, session, _ = batch()
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    outputs = apply(params, features, session)
    assert outputs.encoder.values.dtype == jnp.bfloat16
    assert outputs.logits["phoneme"].values.dtype == jnp.float32
    exact = model().apply(params, features, session).logits["phoneme"].masked().values
    np.testing.assert_allclose(outputs.logits["phoneme"].masked().values, exact, atol=0.1)


@pytest.mark.slow
def test_keys_turn_on_dropout_and_nothing_else_is_random() -> None:
    apply, params, *_ = model()
    features, session, _ = batch()
    first, second, third = (
        apply(params, features, session, None, key).logits["phoneme"].values
        for key in (None, None, jax.random.key(1))
    )
    assert jnp.array_equal(first, second)
    assert not jnp.array_equal(first, third)


def test_frames_are_the_strides_begun_and_diagnostics_name_the_scales() -> None:
    apply, params, multiple, *_ = model()
    features, session, _ = batch()
    outputs = apply(params, features, session)
    assert multiple == 8
    assert outputs.logits["phoneme"].lengths.tolist() == [12, 11, 8]
    assert set(outputs.diagnostics) == {"norm/fast", "norm/medium", "norm/slow", "norm/fused"}
    assert all(value.shape == (3,) for value in outputs.diagnostics.values())


def test_steps_need_whole_chunks_and_a_causal_model() -> None:
    features, session, _ = batch()
    streaming = build_module(
        SMALL | {"causal": True}, channels=4, sessions=3, hides_bins=False, seed=0
    )
    piece = jax.tree.map(lambda leaf: leaf[:, :7], features)
    with pytest.raises(ValueError, match="7 frames do not fill steps of 8"):
        streaming.step(streaming.initial_state(3), piece, session)
    offline = build_module(SMALL, channels=4, sessions=3, hides_bins=False, seed=0)
    with pytest.raises(ValueError, match=r"model\.causal"):
        offline.step({}, piece, session)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"strides": (2, 4)}, r"strides = \(2, 4\): give 3 .*, as --config.model.strides=2,4,8"),
        ({"strides": ("2,4,8",)}, "strides = .* give 3 whole numbers"),
        ({"patches": (4, 8, 0)}, r"patches = \(4, 8, 0\): give 1 or more"),
        ({"layers": (1, 1.5, 1)}, "layers = .* give 3 whole numbers"),
        ({"strides": (2, 3, 8)}, "multiple of the one before"),
        ({"causal": True, "chunk": 12}, "multiple of the slow stride"),
        ({"causal": True, "chunk": 0}, "chunk = 0 to be at least 1"),
        ({"session": "day"}, "choose 'affine'"),
    ],
)
def test_configs_that_do_not_fit(changes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        model(**changes)


def test_a_phoneme_is_as_likely_as_its_diphones_together():
    logits = np.random.default_rng(0).normal(size=(2, 3, DIPHONES)).astype(np.float32)
    found = phoneme_log_probabilities(jnp.asarray(logits))
    p = np.asarray(jax.nn.softmax(logits.astype(np.float64), axis=-1))
    expected = np.zeros((2, 3, CLASSES))
    expected[..., 0] = p[..., 0]
    for diphone, (_, phoneme) in enumerate(itertools.product(range(1, CLASSES), repeat=2), 1):
        expected[..., phoneme] += p[..., diphone]
    np.testing.assert_allclose(np.exp(found), expected, rtol=1e-5)
    np.testing.assert_allclose(np.exp(found).sum(axis=-1), 1, rtol=1e-5)
