"""Predictors run whole or label by label, and depend on the labels they should."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from modessm_jax.blocks.predictor import CONTEXT, PREDICTORS, Predictor, make_predictor
from modessm_jax.phonemes import BLANK, CLASSES
from tests.blocks.contract import difference

D = 6
kinds = pytest.mark.parametrize("kind", sorted(PREDICTORS))


def predictor(kind: str, *, rate: float = 0.5, dtype: Any = jnp.float32) -> Predictor:
    return make_predictor(kind, D, rate=rate, dtype=dtype, rngs=nnx.Rngs(0))


def random_labels(batch: int = 2, labels: int = CLASSES - 1) -> jax.Array:
    """Every label once in each example, in random orders."""
    random = np.random.default_rng(0)
    ids = [random.permutation(np.arange(1, CLASSES))[:labels] for _ in range(batch)]
    return jnp.asarray(np.array(ids), jnp.int32)


def pulled(kind: str, run: Any, labels: jax.Array) -> tuple[Any, jax.Array]:
    """The outputs, and the gradient by all parameters of a scalar of them."""
    graph, params = nnx.split(predictor(kind), nnx.Param)

    def scalar(params: Any) -> tuple[jax.Array, jax.Array]:
        outputs = run(nnx.merge(graph, params), labels)
        position = jnp.arange(outputs.shape[1])[None, :, None]
        weights = jnp.sin(1.7 * position + 0.9 * jnp.arange(D)[None, None, :])
        return jnp.sum(outputs * weights), outputs

    grads, outputs = jax.jit(jax.grad(scalar, has_aux=True))(params)
    return nnx.to_pure_dict(grads), outputs


def step_by_step(module: Predictor, labels: jax.Array) -> jax.Array:
    batch = labels.shape[0]
    start = jnp.full((batch,), BLANK, jnp.int32)
    state, first = module.step(module.initial_state(batch), start)
    _, others = jax.lax.scan(module.step, state, labels.T)
    return jnp.concatenate([first[:, None], others.swapaxes(0, 1)], axis=1)


@kinds
def test_whole_equals_start_and_steps(kind):
    labels = random_labels()
    whole = pulled(kind, lambda module, labels: module(labels), labels)
    stepped = pulled(kind, step_by_step, labels)
    assert whole[1].shape == (2, CLASSES, D)
    assert difference(stepped, whole) < 2e-5


@kinds
def test_every_parameter_receives_a_gradient(kind):
    grads, _ = pulled(kind, lambda module, labels: module(labels), random_labels())
    for path, grad in jax.tree.leaves_with_path(grads):
        assert (grad != 0).all(), path
    assert grads["embedding"].shape == (CLASSES, D)


@kinds
def test_padding_leaves_real_positions_alone(kind):
    module, labels = predictor(kind), random_labels(labels=5)
    padded = module(jnp.pad(labels, ((0, 0), (0, 3))))
    np.testing.assert_allclose(padded[:, :6], module(labels), atol=1e-6)
    assert jnp.isfinite(padded).all()


@pytest.mark.parametrize(("kind", "reach"), [("stateless", CONTEXT), ("lstm", 9)])
def test_how_far_back_a_label_is_seen(kind, reach):
    module, labels = predictor(kind), random_labels(labels=9)
    other = labels.at[:, 0].set(labels[:, 0] % (CLASSES - 1) + 1)
    moved = (module(labels) != module(other)).any(axis=(0, 2))
    assert moved.tolist() == [False] + [True] * reach + [False] * (9 - reach)


@kinds
def test_only_a_key_turns_on_dropout(kind):
    module, labels = predictor(kind), random_labels()
    plain, again = module(labels), module(labels)
    np.testing.assert_array_equal(plain, again)
    one, same, other = (module(labels, key=jax.random.key(seed)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, same)
    assert (one != other).any() and (one != plain).any()
    np.testing.assert_array_equal(predictor(kind, rate=0.0)(labels, key=jax.random.key(0)), plain)


@kinds
def test_half_precision_computes_in_it_and_keeps_full_parameters(kind):
    half, full, labels = predictor(kind, dtype=jnp.bfloat16), predictor(kind), random_labels()
    whole, stepped, exact = jax.jit(
        lambda labels: (half(labels), step_by_step(half, labels), full(labels))
    )(labels)
    assert whole.dtype == stepped.dtype == jnp.bfloat16
    assert all(p.dtype == jnp.float32 for p in jax.tree.leaves(nnx.state(half, nnx.Param)))
    np.testing.assert_allclose(whole.astype(jnp.float32), exact, atol=0.05)


def test_unknown_kinds_are_refused():
    with pytest.raises(ValueError, match="predictor = 'gru': choose one of"):
        predictor("gru")
