"""What decoding and training make of a predictor and a joint network is the same."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from modessm_jax.decoding.transducer import log_probabilities, make_transducer
from modessm_jax.decoding.transducer_beam import beam
from modessm_jax.losses.transducer import Joint, factored_arcs, softmax_arcs, transducer_cost
from modessm_jax.models.predictor import make_predictor
from modessm_jax.sequence import Sequence

ARCS = {"softmax": softmax_arcs, "factored": factored_arcs}
D, CLASSES = 6, 3


def random_joint(seed: int, classes: int = CLASSES) -> Joint:
    random = np.random.default_rng(seed)
    kernel, bias = random.normal(size=(D, classes)), random.normal(size=classes)
    return Joint(jnp.asarray(kernel, jnp.float32), jnp.asarray(bias, jnp.float32))


@pytest.mark.parametrize("arcs", ARCS.values(), ids=ARCS)
@pytest.mark.parametrize("kind", ["stateless", "lstm"])
def test_scores_are_those_of_the_loss(kind, arcs):
    predictor = make_predictor(kind, D, rate=0.5, dtype=jnp.float32, rngs=nnx.Rngs(0))
    joint = random_joint(0)
    random = np.random.default_rng(1)
    values = jnp.asarray(random.normal(size=(3, 4, D)), jnp.float32)
    encoder = Sequence.from_lengths(values, jnp.asarray([4, 1, 3]))

    @jax.jit
    def search(encoder: Sequence):
        transducer = make_transducer(predictor.initial_state, predictor.step, joint, arcs)
        return beam(transducer, encoder, width=15, max_labels=3)

    @jax.jit
    def cost(encoder: Sequence, labels: Sequence):
        return transducer_cost(encoder, predictor(labels.values), joint, labels, arcs=arcs).nats

    found = search(encoder)
    for place in range(15):  # all sequences of up to three of two labels
        labels = Sequence.from_lengths(found.ids[:, place], found.lengths[:, place])
        np.testing.assert_allclose(-cost(encoder, labels), found.scores[:, place], rtol=2e-5)


@pytest.mark.parametrize("arcs", ARCS.values(), ids=ARCS)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_probabilities_sum_to_one_in_full_precision(arcs, dtype):
    random = np.random.default_rng(2)
    encoder, predictor = (jnp.asarray(random.normal(size=(2, 4, D)), dtype) for _ in range(2))
    found = log_probabilities(random_joint(3, 41), arcs)(encoder, predictor)
    assert found.shape == (2, 4, 41) and found.dtype == jnp.float32
    np.testing.assert_allclose(jnp.exp(found).sum(axis=-1), 1, rtol=1e-5)
