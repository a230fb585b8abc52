import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modessm_jax.losses.ctc import ctc_cost
from modessm_jax.models.outputs import Outputs
from modessm_jax.phonemes import CLASSES
from modessm_jax.sequence import Sequence
from modessm_jax.training import objectives

TRIALS, MODES, FRAMES, LABELS = 4, 2, 6, 2
WEIGHTS = {"phoneme": 1.0, "mode": 0.1}


def decoded(rows: int, modes: int = MODES) -> tuple[Outputs, Sequence]:
    """What a model makes of four trials, each in every mode where `rows` says so."""
    rng = np.random.default_rng(0)
    mask = jnp.ones((rows, FRAMES), bool)
    logits = Sequence(jnp.asarray(rng.normal(size=(rows, FRAMES, CLASSES)), jnp.float32), mask)
    log_modes = jax.nn.log_softmax(jnp.asarray(rng.normal(size=(TRIALS, modes)), jnp.float32))
    ids = jnp.asarray(rng.integers(1, CLASSES, (TRIALS, LABELS)), jnp.int32)
    labels = Sequence(ids, jnp.ones((TRIALS, LABELS), bool))
    return Outputs(logits, {"phoneme": logits}, {}, log_modes=log_modes), labels


SLOWLY = (pytest.param(block, marks=pytest.mark.slow) for block in (None, [7, 3, 7, 7]))


@pytest.mark.parametrize("block", [[0, 0, 1, 1], *SLOWLY])
def test_trials_of_a_block_share_their_mode(block):
    outputs, labels = decoded(TRIALS * MODES)
    ids = None if block is None else jnp.asarray(block, jnp.int32)
    nats = objectives.costs_of(outputs, labels, WEIGHTS, ids)["phoneme"].nats

    doubled = jax.tree.map(lambda x: jnp.repeat(x, MODES, axis=0), labels)
    each = np.asarray(ctc_cost(outputs.logits["phoneme"], doubled).nats, np.float64)
    likelihood = np.exp(-each).reshape(TRIALS, MODES)
    modes = np.exp(np.asarray(outputs.log_modes, np.float64))
    names = np.arange(TRIALS) if block is None else np.array(block)
    for name in np.unique(names):
        rows = names == name
        posterior = modes[rows].prod(axis=0)
        both = (posterior / posterior.sum() * likelihood[rows].prod(axis=0)).sum()
        np.testing.assert_allclose(nats[rows].sum(), -np.log(both), rtol=1e-5)


def test_an_objective_without_a_likelihood_cannot_go_with_modes():
    outputs, labels = decoded(TRIALS * MODES)
    with pytest.raises(ValueError, match="label_smoothing has no likelihood to sum over modes"):
        objectives.costs_of(outputs, labels, {**WEIGHTS, "label_smoothing": 0.1})


def test_a_weight_without_a_head_is_refused():
    outputs, labels = decoded(TRIALS)
    with pytest.raises(ValueError, match=r"names 'interctc' but the model's heads are \['phoneme'"):
        objectives.costs_of(outputs, labels, {"interctc": 0.3})
    with pytest.raises(ValueError, match="names 'rnnt' but the model has no transducer"):
        objectives.costs_of(outputs, labels, {"rnnt": 1.0})


def test_the_model_is_asked_for_what_the_objectives_need():
    _, labels = decoded(TRIALS)
    assert objectives.model_inputs({"phoneme": 1.0}, labels, None) == {}
    wanted = objectives.model_inputs({"rnnt": 1.0, "mode": 0.1, "flow": 0.05}, labels, "corrupted")
    assert wanted == {"labels": labels.values, "every_mode": True, "corrupted": "corrupted"}
