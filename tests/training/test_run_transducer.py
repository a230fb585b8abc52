"""A transducer that is sent away is the same when it arrives."""

import dataclasses
import pickle
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modessm_jax.losses.joint import Joint
from modessm_jax.phonemes import CLASSES
from modessm_jax.training.run_transducer import RunTransducer
from modessm_jax.training.runs import build_model
from tests.training.toy import CHANNELS, SESSIONS

D = 6
CONFIG = {
    "augment": {},
    "training": {"seed": 0},
    "model": {
        **{"name": "modessm", "smoothing": 0.0, "gate": 2, "session": "affine"},
        **{"stem": 3, "patch": 4, "stride": 2},
        **{"d": 8, "layers": 2, "upper": 1, "heads": 2, "state": 4, "expand": 2, "kernel": 2},
        **{"modes": 2, "flow": 1, "predictor": "stateless", "joint": D, "dropout": 0.0},
        **{"stochastic_depth": 0.0, "head_scale": 1.0, "causal": False, "dtype": "float32"},
    },
}


@pytest.fixture(scope="module")
def given() -> RunTransducer:
    """With random parameters."""
    random = np.random.default_rng(0)
    shapes = jax.eval_shape(lambda: build_model(CONFIG, CHANNELS, SESSIONS).params)
    params = jax.tree.map(lambda of: random.normal(size=of.shape).astype(of.dtype), shapes)
    joint = Joint(random.normal(size=(D, CLASSES)), random.normal(size=CLASSES))
    return RunTransducer(CONFIG, CHANNELS, SESSIONS, params, joint)


def test_it_says_after_a_journey_what_its_parameters_say(given):
    transducer = pickle.loads(pickle.dumps(given)).functions()

    @jax.jit
    def said(labels: Any) -> tuple[Any, Any]:
        state, output = transducer.start(2)
        outputs = [output]
        for column in labels.T:
            state, output = transducer.advance(state, column)
            outputs.append(output)
        return jnp.stack(outputs, axis=1), transducer.joint(jnp.zeros((2, D)), output)

    labels = np.array([[4, 5, 5, 9], [1, 2, 40, 3]])
    outputs, scores = said(jnp.asarray(labels))
    # A stateless predictor sees two labels; before the first stand blanks.
    own = given.params["transducer"]["predictor"]
    vectors = own["embedding"][np.pad(labels, ((0, 0), (2, 0)))]
    hidden = own["taps"][0] * vectors[:, :-1] + own["taps"][1] * vectors[:, 1:]
    hidden = hidden / (1 + np.exp(-hidden))
    expected = hidden @ own["out"]["kernel"] + own["out"]["bias"]
    np.testing.assert_allclose(outputs, expected, rtol=1e-4, atol=1e-4)
    logits = np.tanh(expected[:, -1]) @ given.joint.kernel + given.joint.bias
    logits -= np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    np.testing.assert_allclose(scores, logits, rtol=1e-4, atol=1e-4)


def test_the_checksum_is_of_every_parameter(given):
    digests = {given.digest, pickle.loads(pickle.dumps(given)).digest}
    assert len(digests) == 1
    other = jax.tree.map(np.copy, given.params)
    other["transducer"]["predictor"]["taps"][0, 0] += 1
    digests.add(dataclasses.replace(given, params=other).digest)
    joint = Joint(given.joint.kernel, given.joint.bias + 1)
    digests.add(dataclasses.replace(given, joint=joint).digest)
    assert len(digests) == 3
