"""Every lattice loss under the transformations training uses, and at the extremes of its input."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from modessm_jax.losses.ctc import ctc_cost
from modessm_jax.losses.rnnt import rnnt_cost
from modessm_jax.losses.transducer import Joint, transducer_cost
from modessm_jax.sequence import Sequence

BATCH, FRAMES, LABELS, CLASSES = 4, 7, 3, 5


def ctc(values, frames, ids, counts):
    logits = Sequence.from_lengths(values[:, :, 0], frames)
    return ctc_cost(logits, Sequence.from_lengths(ids, counts)).nats


def rnnt(values, frames, ids, counts):
    return rnnt_cost(Sequence.from_lengths(values, frames), Sequence.from_lengths(ids, counts)).nats


def transducer(values, frames, ids, counts):
    # The classes double as the joint's width.
    encoder = Sequence.from_lengths(values[:, :, 0], frames)
    joint = Joint(3 * jnp.eye(CLASSES, dtype=values.dtype), values[0, 0, 0])
    labels = Sequence.from_lengths(ids, counts)
    return transducer_cost(encoder, values[:, 0], joint, labels).nats


def batch(seed: int = 0, scale: float = 1.0, dtype=jnp.float32):
    random = np.random.default_rng(seed)
    values = scale * random.uniform(-1, 1, (BATCH, FRAMES, LABELS + 1, CLASSES))
    ids = random.integers(1, CLASSES, (BATCH, LABELS))
    counts = random.integers(0, LABELS + 1, BATCH)
    frames = random.integers(2 * LABELS, FRAMES + 1, BATCH)
    given = (jnp.asarray(values, dtype), jnp.asarray(frames), jnp.asarray(ids), jnp.asarray(counts))
    return given


def pull(cost):
    def summed(*given):
        nats = cost(*given)
        return nats.sum(), nats

    return jax.jit(jax.value_and_grad(summed, has_aux=True))


LOSSES = pytest.mark.parametrize("cost", [ctc, rnnt, transducer], ids=lambda f: f.__name__)


@LOSSES
def test_under_vmap_and_checkpoint(cost):
    several = [batch(seed) for seed in range(3)]
    expected = [pull(cost)(*given) for given in several]
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *several)
    run = jax.jit(jax.vmap(pull(jax.checkpoint(cost))))
    (_, nats), gradient = run(*stacked)
    for row, ((_, wanted), slope) in enumerate(expected):
        np.testing.assert_allclose(nats[row], wanted, rtol=1e-5)
        np.testing.assert_allclose(gradient[row], slope, atol=1e-5)


@LOSSES
@pytest.mark.parametrize("axis_type", [AxisType.Auto, AxisType.Explicit], ids=lambda t: t.name)
def test_over_a_data_mesh(cost, axis_type):
    """In explicit mode the losses are called through `jax.sharding.auto_axes`."""
    expected = pull(cost)(*batch())
    mesh = jax.make_mesh((4,), ("data",), axis_types=(axis_type,))
    over_data = NamedSharding(mesh, PartitionSpec("data"))
    with jax.set_mesh(mesh):
        run = cost
        if axis_type == AxisType.Explicit:
            run = jax.sharding.auto_axes(cost, out_sharding=over_data)
        (_, nats), gradient = pull(run)(*jax.device_put(batch(), over_data))
    np.testing.assert_allclose(nats, expected[0][1], rtol=1e-5)
    np.testing.assert_allclose(gradient, expected[1], atol=1e-5)
    assert nats.sharding.is_equivalent_to(over_data, 1)


@pytest.mark.slow
@LOSSES
def test_extreme_half_precision_input_is_never_answered_with_nan(cost):
    """Ten thousand batches with logits up to 1e4."""
    run = pull(jax.vmap(cost))
    for seed in range(100):
        random = np.random.default_rng(seed)
        values = random.uniform(-1, 1, (100, BATCH, FRAMES, LABELS + 1, CLASSES))
        values = jnp.asarray(values * 10 ** random.uniform(0, 4, (100, 1, 1, 1, 1)), jnp.bfloat16)
        frames = jnp.asarray(random.integers(2 * LABELS, FRAMES + 1, (100, BATCH)))
        ids = jnp.asarray(random.integers(1, CLASSES, (100, BATCH, LABELS)))
        counts = jnp.asarray(random.integers(0, LABELS + 1, (100, BATCH)))
        (_, nats), gradient = run(values, frames, ids, counts)
        assert jnp.isfinite(nats).all()
        assert jnp.isfinite(gradient).all()
        assert nats.dtype == jnp.float32
        assert gradient.dtype == jnp.bfloat16


@LOSSES
def test_nan_in_a_real_frame_is_passed_on(cost):
    values, *given = batch()
    (_, nats), gradient = pull(cost)(values.at[1, 0, 0, 2].set(jnp.nan), *given)
    assert jnp.isnan(nats[1])
    assert jnp.isnan(gradient[1]).any()
    assert jnp.isfinite(nats[jnp.asarray([0, 2, 3])]).all()
