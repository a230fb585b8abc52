"""The banded loss: exact where the band covers everything, above the exact cost where not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modessm_jax.losses import pruned
from modessm_jax.losses.pruned import Simple, band_start, pruned_cost
from modessm_jax.losses.rnnt import rnnt_cost
from modessm_jax.losses.transducer import transducer_cost
from modessm_jax.sequence import Sequence
from tests.losses.test_transducer import CLASSES, LABELS, WIDTH, network, pull


def simple_network(seed: int, dtype=jnp.float32) -> Simple:
    random = np.random.default_rng(seed)
    kernels = random.normal(size=(2, WIDTH, CLASSES))
    return Simple(jnp.asarray(kernels[0], dtype), jnp.asarray(kernels[1], dtype))


def test_a_band_over_all_positions_is_exact():
    with jax.enable_x64(True):
        given = network(0, jnp.float64)
        simple = simple_network(1, jnp.float64)

        def banded(encoder, predictor, joint, labels):
            return pruned_cost(encoder, predictor, joint, simple, labels, band=LABELS + 1)[0]

        expected, found = pull(transducer_cost, *given), pull(banded, *given)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-12), found, expected)


def test_the_simple_cost_is_that_of_summed_linear_maps():
    simple = simple_network(1)

    def summed(encoder, predictor, joint, labels):
        by_encoder = encoder.values @ simple.encoder
        by_predictor = predictor @ simple.predictor
        logits = by_encoder[:, :, None] + by_predictor[:, None]
        return rnnt_cost(Sequence(logits, encoder.mask), labels)

    def quick(encoder, predictor, joint, labels):
        return pruned_cost(encoder, predictor, joint, simple, labels, band=2)[1]

    given = network(0)
    expected, found = pull(summed, *given), pull(quick, *given)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), found, expected)


def test_a_narrow_band_costs_more_and_its_gradient_is_its_slope():
    with jax.enable_x64(True):
        encoder, predictor, joint, labels = network(2, jnp.float64)
        simple = simple_network(3, jnp.float64)

        def banded(encoder, predictor, joint, labels):
            return pruned_cost(encoder, predictor, joint, simple, labels, band=2)[0]

        exact, _ = pull(transducer_cost, encoder, predictor, joint, labels)
        cost, gradients = pull(banded, encoder, predictor, joint, labels)
        # The third example has two labels and a single frame, through which a band of 2 cannot
        # rise.
        assert cost.valid.tolist() == [True, True, False, False]
        assert (cost.nats[:2] >= exact.nats[:2] - 1e-12).all()
        assert cost.nats[0] > exact.nats[0] + 1e-6
        weights = 1.0 + np.arange(4)
        step = 1e-6 * jnp.asarray(np.random.default_rng(4).normal(size=predictor.shape))
        run = jax.jit(lambda p: banded(encoder, p, joint, labels).nats)
        slope = weights @ (run(predictor + step) - run(predictor - step)) / 2
        np.testing.assert_allclose(jnp.vdot(gradients[1], step), slope, rtol=1e-6)


def test_windows_start_at_the_bottom_reach_the_top_and_overlap():
    random = np.random.default_rng(5)
    batch, time, positions, band = 50, 12, 9, 3
    flow = random.random((2, batch, time, positions)).astype(np.float32)
    frames = random.integers(5, time + 1, batch)
    counts = random.integers(0, positions, batch)
    start = np.asarray(
        band_start(
            jnp.asarray(flow[0]),
            jnp.asarray(flow[1]),
            jnp.asarray(frames),
            jnp.asarray(counts),
            band,
        )
    )
    assert (start[:, 0] == 0).all()
    rise = np.diff(start, axis=1)
    assert ((rise >= 0) & (rise < band)).all()
    for row in range(batch):
        last = start[row, frames[row] - 1]
        assert last <= counts[row] < last + band


def test_the_window_follows_the_flow():
    # All probability walks up one position a frame: each window must hold that step.
    time = positions = 8
    by_label = jnp.eye(time, positions)[None].at[0, -1, -1].set(0)
    by_blank = jnp.eye(time, positions, k=1)[None].at[0, -1, -1].set(1)
    start = band_start(by_blank, by_label, jnp.asarray([time]), jnp.asarray([positions - 1]), 3)
    at = np.arange(time)
    assert (start[0] <= at).all()
    assert (np.minimum(at + 1, positions - 1) < start[0] + 3).all()


def test_a_band_of_one_is_refused():
    encoder, predictor, joint, labels = network(0)
    with pytest.raises(ValueError, match="at least 2"):
        pruned_cost(encoder, predictor, joint, simple_network(0), labels, band=1)


def test_the_norm_and_the_choice_of_a_label_are_asked_for_in_full_precision():
    """A GPU rounds numbers to TF32 before it multiplies, unless told not to; a CPU never does."""
    given = network(0)
    ids = jnp.zeros(given[1].shape[:2], jnp.int32)
    arcs = jax.make_jaxpr(pruned._simple_arcs)(given[0].values, given[1], simple_network(1), ids)
    assert str(arcs).count("precision=(Precision.HIGHEST") == 2
