"""The fused joint and loss against the same network written out, whatever it computes at a time."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modessm_jax.losses import transducer
from modessm_jax.losses.rnnt import rnnt_cost
from modessm_jax.losses.transducer import Chunk, Joint, default_chunk, transducer_cost
from modessm_jax.phonemes import BLANK
from modessm_jax.sequence import Sequence
from tests.losses.enumeration import padded

FRAMES, LABELS, CLASSES, WIDTH = 7, 3, 5, 6
LENGTHS, TARGETS = [7, 4, 1, 0], [[1, 1, 3], [2], [4, 2], []]


def network(seed: int, dtype=jnp.float32):
    random = np.random.default_rng(seed)

    def draw(*shape):
        return jnp.asarray(random.normal(size=shape), dtype)

    batch = len(LENGTHS)
    encoder = Sequence.from_lengths(draw(batch, FRAMES, WIDTH), jnp.asarray(LENGTHS))
    joint = Joint(draw(WIDTH, CLASSES), draw(CLASSES))
    return encoder, draw(batch, LABELS + 1, WIDTH), joint, padded(TARGETS, LABELS)


def logits_of(encoder, predictor, joint):
    """[batch, frames, positions, classes], written out."""
    hidden = jnp.tanh(encoder[:, :, None] + predictor[:, None])
    return hidden @ joint.kernel + joint.bias[None, None, None]


def written_out(encoder, predictor, joint, labels):
    return rnnt_cost(encoder.with_values(logits_of(encoder.values, predictor, joint)), labels)


def pull(cost_of, encoder, predictor, joint, labels):
    """Costs, and gradients of encoder, predictor and joint; each example weighs differently."""

    @jax.jit
    def run(values, predictor, joint):
        def weighed(values, predictor, joint):
            cost = cost_of(encoder.with_values(values), predictor, joint, labels)
            weights = 1.0 + jnp.arange(cost.nats.shape[0], dtype=cost.nats.dtype)
            return jnp.vdot(weights, cost.nats), cost

        (_, cost), gradients = jax.value_and_grad(weighed, (0, 1, 2), has_aux=True)(
            values, predictor, joint
        )
        return cost, gradients

    return run(encoder.values, predictor, joint)


def assert_close(found, expected):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-12), found, expected)


@pytest.mark.parametrize("chunk", [None, Chunk(1, 1), Chunk(4, 2), Chunk(2, 3), Chunk(2, 100)])
def test_chunks_give_what_the_whole_network_gives(chunk):
    with jax.enable_x64(True):
        given = network(0, jnp.float64)
        expected = pull(written_out, *given)
        found = pull(lambda *a: transducer_cost(*a, chunk=chunk), *given)
        assert_close(found, expected)
    assert found[0].valid.tolist() == [True, True, True, False]


@pytest.mark.parametrize(
    "chunk",
    [Chunk(2, 5), *(pytest.param(c, marks=pytest.mark.slow) for c in (Chunk(1, 2), Chunk(4, 3)))],
)
def test_log_probabilities_and_their_gradient_are_those_of_the_whole_network(chunk):
    """For any weights, also such as no lattice gives."""
    with jax.enable_x64(True):
        encoder, predictor, joint, _ = network(3, jnp.float64)
        given = encoder.values, predictor, joint
        random = np.random.default_rng(4)
        ids = jnp.asarray(random.integers(1, CLASSES, predictor.shape[:2]))
        weights = tuple(jnp.asarray(random.normal(size=(2, len(LENGTHS), FRAMES, LABELS + 1))))

        def whole(*given):
            every = jax.nn.log_softmax(logits_of(*given))
            label = jnp.take_along_axis(every, ids[:, None, :, None], axis=-1)[..., 0]
            return every[..., BLANK], label

        def parts(*given):
            return transducer._log_probabilities(*given, ids, chunk)

        expected, pull_expected = jax.vjp(whole, *given)
        found, pull_found = jax.vjp(parts, *given)
        assert_close(found, expected)
        assert_close(pull_found(weights), pull_expected(weights))


def test_nan_in_padding_reaches_nothing():
    encoder, predictor, joint, labels = network(1)
    real = jnp.arange(LABELS + 1)[None, :, None] <= labels.lengths[:, None, None]
    dirty = encoder.with_values(jnp.where(encoder.expanded_mask(), encoder.values, jnp.nan))
    clean = pull(transducer_cost, encoder, predictor, joint, labels)
    found = pull(transducer_cost, dirty, jnp.where(real, predictor, jnp.nan), joint, labels)
    jax.tree.map(np.testing.assert_array_equal, found, clean)


def test_half_precision_products_are_summed_in_float32():
    encoder, predictor, joint, labels = network(2)
    expected, exact = pull(transducer_cost, encoder, predictor, joint, labels)
    half = encoder.with_values(encoder.values.astype(jnp.bfloat16))
    cost, gradients = pull(transducer_cost, half, predictor, joint, labels)
    assert cost.nats.dtype == jnp.float32
    assert [x.dtype for x in jax.tree.leaves(gradients)] == [jnp.bfloat16] + [jnp.float32] * 3
    np.testing.assert_allclose(cost.nats, expected.nats, rtol=2e-2)
    for found, wanted in zip(jax.tree.leaves(gradients), jax.tree.leaves(exact), strict=True):
        assert jnp.linalg.norm(found - wanted) < 3e-2 * jnp.linalg.norm(wanted)


@pytest.mark.parametrize("shape", [(8, 250, 61, 512), (64, 250, 61, 512), (6, 10, 3, 16)])
def test_the_default_chunk_fits_the_batch_and_the_cache(shape):
    batch, time, positions, d = shape
    chunk = default_chunk(*shape)
    assert batch % chunk.examples == 0
    assert 1 <= chunk.frames <= time
    assert 4 * chunk.examples * chunk.frames * positions * d <= 1 << 20


def test_a_chunk_that_does_not_divide_the_batch_is_refused():
    with pytest.raises(ValueError, match="chunks of 3 examples"):
        transducer_cost(*network(0), chunk=Chunk(3, 1))


def test_positions_that_do_not_fit_the_labels_are_refused():
    encoder, predictor, joint, labels = network(0)
    with pytest.raises(ValueError, match="one more position than labels"):
        transducer_cost(encoder, predictor[:, :-1], joint, labels)
