"""Every trial's probabilities, without padding and with its sentence, whoever made them.

A transducer that is sent away is the same when it arrives.
"""

import dataclasses
import pickle
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modessm_jax.data.recordings import read_recordings
from modessm_jax.data.validation import DataError
from modessm_jax.decoding.ctc import align, to_lists
from modessm_jax.decoding.ctc import greedy as greedy_ctc
from modessm_jax.decoding.transducer import greedy
from modessm_jax.evaluation.posteriors import (
    Noise,
    RunTransducer,
    best_path,
    posteriors_from,
    posteriors_of,
)
from modessm_jax.evaluation.scoring import transducer_of
from modessm_jax.losses.transducer import Joint
from modessm_jax.models.build import Functional, Predict
from modessm_jax.models.outputs import JointInputs
from modessm_jax.phonemes import BLANK, CLASSES
from modessm_jax.runs.load import Run, build_model
from modessm_jax.sequence import Sequence
from tests.data.layout import write_split
from tests.toy import CHANNELS, SESSIONS, WIDTH, apply, initial_params
from tests.words.spoken import SENTENCES, encodings, posteriors, write_data

LENGTHS = [12, 18, 14]


def evaluate(params, features, session):
    return apply(params, features, session, jnp.zeros(features.mask.shape, bool), None)


def test_each_trial_has_what_the_model_says_of_it_alone(tmp_path):
    for session in ("a", "b"):
        write_split(tmp_path, session, "val", LENGTHS, channels=CHANNELS)
    data = {"batch_size": 4, "buckets": 1, "sessions": [], "table": "", "memory_gib": 1.0}
    params = initial_params()
    functional = Functional(evaluate, params, multiple=2, predict=None)
    config = {"model": {}, "data": {"root": str(tmp_path), **data}}
    found = posteriors_of(Run(config, {"a": 0, "b": 1}, CHANNELS, functional, params, 7), "val")
    recordings = read_recordings(tmp_path, "val")
    assert [trial.name for trial in found.trials] == [trial.name for trial in recordings.trials]
    assert [trial.sentence for trial in found.trials][:2] == ["sentence 0", "sentence 1"]
    assert [len(trial.frames) for trial in found.trials] == [6, 9, 7, 6, 9, 7]
    last = Sequence(jnp.asarray(recordings.features(5)[None]), jnp.ones((1, 14), bool))
    alone = evaluate(params, last, jnp.array([1]))
    expected = jax.nn.log_softmax(alone.logits["phoneme"].values[0])
    np.testing.assert_allclose(found.trials[5].frames, expected, atol=1e-5)


def test_a_noisy_copy_of_a_trial_depends_on_nothing_but_the_seed(tmp_path):
    for session in ("a", "b"):
        write_split(tmp_path, session, "val", LENGTHS, channels=CHANNELS)

    def heard(noise, batch_size):
        data = {"batch_size": batch_size, "buckets": 1, "sessions": [], "table": ""}
        config = {"model": {}, "data": {"root": str(tmp_path), "memory_gib": 1.0, **data}}
        params = initial_params()
        functional = Functional(evaluate, params, multiple=2, predict=None)
        run = Run(config, {"a": 0, "b": 1}, CHANNELS, functional, params, 7)
        return [trial.frames for trial in posteriors_of(run, "val", noise=noise).trials]

    clean, noisy = heard(Noise(0.0, 3), 4), heard(Noise(0.5, 3), 4)
    for one, other in zip(noisy, heard(Noise(0.5, 3), 8), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
    for others in (clean, heard(Noise(0.5, 4), 4)):
        assert all(np.abs(a - b).max() > 1e-3 for a, b in zip(noisy, others, strict=True))


def test_noise_is_white_and_leaves_the_padding_alone():
    mask = jnp.arange(400)[None] < jnp.array([400, 300])[:, None]
    features = Sequence(jnp.zeros((2, 400, 30)), mask)
    values = np.asarray(Noise(0.5, 1).added_to(features, jnp.array([5, 9])).values)
    first, second = values[0, :300], values[1, :300]
    np.testing.assert_array_equal(values[1, 300:], 0)
    assert abs(first.std() - 0.5) < 0.02 and abs(first.mean()) < 0.02
    pairs = [(first, second), (first[1:], first[:-1]), (first[:, 1:], first[:, :-1])]
    for one, other in pairs:
        assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 0.04


def test_a_transducer_has_what_its_encoder_and_greedy_search_say_of_each_trial_alone(tmp_path):
    for session in ("a", "b"):
        write_split(tmp_path, session, "val", LENGTHS, channels=CHANNELS)
    data = {"batch_size": 4, "buckets": 1, "sessions": [], "table": "", "memory_gib": 1.0}
    random = np.random.default_rng(0)
    table = random.normal(size=(CLASSES, WIDTH)).astype(np.float32)
    joint = Joint(*(random.normal(size=s).astype(np.float32) for s in ((WIDTH, CLASSES), CLASSES)))
    joint.bias[BLANK] += 3

    def heard(params, features, session):
        outputs = evaluate(params, features, session)
        inputs = JointInputs(outputs.encoder, None, joint.kernel, joint.bias)
        return dataclasses.replace(outputs, transducer=inputs)

    def step(params, state, labels):
        del params
        return state, jnp.asarray(table)[labels]

    predict = Predict(lambda params, batch: jnp.zeros((batch,)), step, lambda params: joint)
    params = initial_params()
    functional = Functional(heard, params, multiple=2, predict=predict)
    config = {"data": {"root": str(tmp_path), **data}, "model": {"name": "toy"}}
    run = Run(config, {"a": 0, "b": 1}, CHANNELS, functional, params, 7)
    found = posteriors_of(run, "val", head="rnnt")
    recordings = read_recordings(tmp_path, "val")
    assert [len(trial.frames) for trial in found.trials] == [6, 9, 7, 6, 9, 7]
    last = Sequence(jnp.asarray(recordings.features(5)[None]), jnp.ones((1, 14), bool))
    encoder = evaluate(params, last, jnp.array([1])).encoder
    np.testing.assert_allclose(found.trials[5].frames, encoder.values[0], atol=1e-5)
    alone = to_lists(greedy(transducer_of(predict, params, joint), encoder))
    assert alone == [found.trials[5].phonemes] and alone[0]
    assert found.transducer is not None
    np.testing.assert_array_equal(found.transducer.joint.kernel, joint.kernel)
    without = run._replace(functional=functional._replace(predict=None))
    with pytest.raises(ValueError, match="'toy' has no transducer"):
        posteriors_of(without, "val", head="rnnt")


def test_the_checksum_is_of_the_transducer_too():
    given = encodings()
    assert given.digest == encodings().digest
    assert given.transducer is not None
    kernel = dataclasses.replace(given.transducer, joint=Joint(np.ones(1), np.zeros(1)))
    assert dataclasses.replace(given, transducer=kernel).digest != given.digest
    assert dataclasses.replace(given, transducer=None).digest != given.digest


def test_phonemes_are_merged_before_blanks_are_removed():
    values = np.zeros((8, CLASSES), np.float32)
    values[np.arange(8), [3, 3, BLANK, 3, 7, BLANK, BLANK, 5]] = 1
    phonemes, spans = best_path(values)
    assert phonemes.tolist() == [3, 3, 7, 5]
    assert spans.tolist() == [[0, 2], [3, 4], [4, 5], [7, 8]]
    for few in (values[:0], values[2:3]):
        assert [len(each) for each in best_path(few)] == [0, 0]


def test_the_best_path_is_the_best_alignment_of_its_phonemes():
    for seed in range(20):
        values = np.random.default_rng(seed).normal(size=(12, CLASSES)).astype(np.float32)
        values[:, BLANK] += 2
        phonemes, spans = best_path(values)
        ids = Sequence(jnp.asarray(values[None]), jnp.ones((1, 12), bool))
        assert [phonemes.tolist()] == to_lists(greedy_ctc(ids))
        assert (align(values, phonemes) + np.array([0, 1])).tolist() == spans.tolist()


def test_emissions_get_the_sentences_of_their_data(tmp_path):
    write_data(tmp_path, "val", SENTENCES)
    emissions = {("a", 1, k): trial.frames for k, trial in enumerate(posteriors().trials)}
    found = posteriors_from(dict(reversed(emissions.items())), "val", tmp_path)
    assert [trial.sentence for trial in found.trials] == SENTENCES
    assert all(trial.frames is emissions[trial.key] for trial in found.trials)
    strange = {**emissions, ("b", 1, 0): emissions["a", 1, 0]}
    with pytest.raises(DataError, match=r"1 trials are none of val in .* b/block 1/trial 0"):
        posteriors_from(strange, "val", tmp_path)
    del emissions["a", 1, 2]
    with pytest.raises(DataError, match=r"1 trials are missing in .* a/block 1/trial 2"):
        posteriors_from(emissions, "val", tmp_path)


def test_the_checksum_is_of_everything():
    given = posteriors()
    assert given.digest == posteriors().digest
    first, *others = given.trials
    louder = first.frames.copy()
    louder[0, 0] += 1e-3
    changes = [{"sentence": "cats"}, {"key": ("a", 2, 0)}, {"frames": louder}]
    changed = [
        dataclasses.replace(given, trials=[dataclasses.replace(first, **change), *others])
        for change in changes
    ]
    digests = {given.digest, *(one.digest for one in changed)}
    assert len(digests | {dataclasses.replace(given, split="test").digest}) == 5


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
