"""The joint network in parts, and its hand-written gradients, against automatic ones."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modessm_jax.losses.transducer import Chunk, Joint, factored_arcs, joint_arcs, softmax_arcs
from modessm_jax.phonemes import BLANK

BATCH, FRAMES, POSITIONS, CLASSES, WIDTH = 4, 5, 6, 7, 3

ARCS = pytest.mark.parametrize("arcs", [softmax_arcs, factored_arcs], ids=["softmax", "factored"])


def network(seed: int = 0):
    random = np.random.default_rng(seed)
    encoder, predictor = (
        jnp.asarray(random.normal(size=(BATCH, count, WIDTH))) for count in (FRAMES, POSITIONS)
    )
    joint = Joint(
        jnp.asarray(random.normal(size=(WIDTH, CLASSES))), jnp.asarray(random.normal(size=CLASSES))
    )
    ids = jnp.asarray(random.integers(1, CLASSES, (BATCH, POSITIONS)))
    # Bands that rise, the last of them beyond the end.
    start = jnp.asarray(np.sort(random.integers(0, POSITIONS, (BATCH, FRAMES))))
    return encoder, predictor, joint, ids, start


def log_probabilities(logits, arcs):
    """Blank and labels, [..., classes], of logits written out."""
    if arcs is softmax_arcs:
        return jax.nn.log_softmax(logits)
    decision = logits[..., BLANK, None]
    chosen = jax.nn.log_softmax(logits[..., BLANK + 1 :])
    parts = (jax.nn.log_sigmoid(decision), jax.nn.log_sigmoid(-decision) + chosen)
    return jnp.concatenate(parts, axis=-1)


@ARCS
def test_arcs_are_probabilities_and_their_gradient_is_the_automatic_one(arcs):
    random = np.random.default_rng(1)
    with jax.enable_x64(True):
        logits = jnp.asarray(3 * random.normal(size=(POSITIONS, CLASSES)))
        ids = jnp.asarray(random.integers(1, CLASSES, POSITIONS))
        weights = tuple(jnp.asarray(random.normal(size=(2, POSITIONS))))

        def picked(logits):
            every = log_probabilities(logits, arcs)
            return every[:, BLANK], jnp.take_along_axis(every, ids[:, None], axis=-1)[:, 0]

        expected, pull = jax.vjp(picked, logits)
        found, norm = arcs.forward(logits, ids)
        np.testing.assert_allclose(found, expected, atol=1e-12)
        np.testing.assert_allclose(
            arcs.backward(logits, ids, norm, weights), pull(weights)[0], atol=1e-12
        )
        np.testing.assert_allclose(jnp.exp(log_probabilities(logits, arcs)).sum(-1), 1, atol=1e-12)


@ARCS
@pytest.mark.parametrize("band", [None, 1, 3])
@pytest.mark.parametrize("chunk", [Chunk(1, 2), Chunk(2, 5), Chunk(4, 3)])
def test_a_band_holds_what_the_whole_lattice_holds_there(arcs, band, chunk):
    with jax.enable_x64(True):
        encoder, predictor, joint, ids, start = network()
        # Ends of bands repeat the last position.
        at = np.minimum(np.asarray(start)[..., None] + np.arange(band or 1), POSITIONS - 1)
        at = np.broadcast_to(np.arange(POSITIONS), (BATCH, FRAMES, POSITIONS)) if not band else at
        weights = jnp.asarray(np.random.default_rng(2).normal(size=(2, *at.shape)))

        def whole(encoder, predictor, joint):
            hidden = jnp.tanh(encoder[:, :, None] + predictor[:, None])
            logits = hidden @ joint.kernel + joint.bias[None, None, None]
            every = log_probabilities(logits, arcs)
            label = jnp.take_along_axis(every, ids[:, None, :, None], axis=-1)[..., 0]
            both = (every[..., BLANK], label)
            return tuple(jnp.take_along_axis(x, jnp.asarray(at), axis=2) for x in both)

        def parts(encoder, predictor, joint):
            given = (None, POSITIONS) if band is None else (start, band)
            return joint_arcs(encoder, predictor, joint, ids, *given, arcs, chunk)

        expected, pull = jax.vjp(whole, encoder, predictor, joint)
        found, other = jax.vjp(parts, encoder, predictor, joint)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-12), found, expected)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, atol=1e-12),
            other(tuple(weights)),
            pull(tuple(weights)),
        )
