"""Every trial's probabilities, without padding and with its sentence, whoever made them."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modessm_jax.data.trials import read_recordings
from modessm_jax.data.validation import DataError
from modessm_jax.models.build import Functional
from modessm_jax.phonemes import BLANK, CLASSES
from modessm_jax.sequence import Sequence
from modessm_jax.training.posteriors import Posterior, posteriors_from, posteriors_of
from modessm_jax.training.runs import Run
from tests.data.layout import write_split
from tests.training.spoken import SENTENCES, posteriors, write_data
from tests.training.toy import CHANNELS, apply, initial_params

LENGTHS = [12, 18, 14]


def evaluate(params, features, session):
    return apply(params, features, session, jnp.zeros(features.mask.shape, bool), None)


def test_each_trial_has_what_the_model_says_of_it_alone(tmp_path):
    for session in ("a", "b"):
        write_split(tmp_path, session, "val", LENGTHS, channels=CHANNELS)
    data = {"batch_size": 4, "buckets": 1, "sessions": [], "table": "", "memory_gib": 1.0}
    params = initial_params()
    functional = Functional(evaluate, params, multiple=2, predict=None)
    config = {"data": {"root": str(tmp_path), **data}}
    found = posteriors_of(Run(config, ("a", "b"), CHANNELS, functional, params, 7), "val")
    recordings = read_recordings(tmp_path, "val")
    assert [trial.name for trial in found.trials] == [trial.name for trial in recordings.trials]
    assert [trial.sentence for trial in found.trials][:2] == ["sentence 0", "sentence 1"]
    assert [len(trial.log_probabilities) for trial in found.trials] == [6, 9, 7, 6, 9, 7]
    last = Sequence(jnp.asarray(recordings.features(5)[None]), jnp.ones((1, 14), bool))
    alone = evaluate(params, last, jnp.array([1]))
    expected = jax.nn.log_softmax(alone.logits["phoneme"].values[0])
    np.testing.assert_allclose(found.trials[5].log_probabilities, expected, atol=1e-5)


def test_phonemes_are_merged_before_blanks_are_removed():
    values = np.zeros((7, CLASSES), np.float32)
    values[np.arange(7), [3, 3, BLANK, 3, BLANK, BLANK, 5]] = 1
    assert Posterior(("a", 1, 0), None, None, values).phonemes == [3, 3, 5]


def test_emissions_get_the_sentences_of_their_data(tmp_path):
    write_data(tmp_path, "val", SENTENCES)
    emissions = {
        ("a", 1, k): trial.log_probabilities for k, trial in enumerate(posteriors().trials)
    }
    found = posteriors_from(dict(reversed(emissions.items())), "val", tmp_path)
    assert [trial.sentence for trial in found.trials] == SENTENCES
    assert all(trial.log_probabilities is emissions[trial.key] for trial in found.trials)
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
    louder = first.log_probabilities.copy()
    louder[0, 0] += 1e-3
    changes = [{"sentence": "cats"}, {"key": ("a", 2, 0)}, {"log_probabilities": louder}]
    changed = [
        dataclasses.replace(given, trials=[dataclasses.replace(first, **change), *others])
        for change in changes
    ]
    digests = {given.digest, *(one.digest for one in changed)}
    assert len(digests | {dataclasses.replace(given, split="test").digest}) == 5
