"""An evaluation of known predictions must add up to figures worked out by hand."""

import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Float

from modessm_jax.augmentation.augment import Corruption
from modessm_jax.data.batches import EvaluationBatches
from modessm_jax.data.hdf5 import Trial
from modessm_jax.data.recordings import Recordings, read_recordings
from modessm_jax.decoding.transducer_beam import Fusion
from modessm_jax.evaluation import scoring
from modessm_jax.evaluation.report import format_table
from modessm_jax.evaluation.scoring import damaged, evaluate, make_scorer
from modessm_jax.models.build import Functional, build
from modessm_jax.models.outputs import Outputs
from modessm_jax.phonemes import CLASSES, SILENCE
from modessm_jax.runtime.keys import damage_root
from modessm_jax.runtime.mesh import data_mesh, replicated
from modessm_jax.sequence import Sequence

CONFIDENCE = 8.0


def echo(params, features, session) -> Outputs:
    """Every second bin's features are its logits: a model whose predictions the data spell out."""
    del session
    logits = Sequence(params["gain"] * features.values[:, ::2], features.mask[:, ::2])
    return Outputs(logits, {"phoneme": logits}, {})


ONE_DEVICE = data_mesh(jax.devices()[:1])
MODEL = Functional(echo, {}, 2, None)
SCORER = make_scorer(MODEL, ONE_DEVICE)
PARAMS = {"gain": jnp.asarray(CONFIDENCE)}


def spelled(path: list[int]) -> Float[np.ndarray, "bins classes"]:
    """Features that make `echo` emit the path, one frame for each id."""
    return np.repeat(np.eye(CLASSES, dtype=np.float32)[path], 2, axis=0)


def recordings_of(trials: list[tuple[str, str | None, list[int], list[int] | None]]) -> Recordings:
    """From (session, corpus, path to emit, labels) of each trial."""
    made = [
        Trial(
            session=session,
            block=2,
            number=10 + number,
            file=Path("nowhere"),
            group=f"trial_{number:04d}",
            bins=2 * len(path),
            labels=None if labels is None else np.array(labels, np.int32),
            sentence=None,
            corpus=corpus,
        )
        for number, (session, corpus, path, labels) in enumerate(trials)
    ]
    memory: list[np.ndarray | None] = [spelled(path) for _, _, path, _ in trials]
    sessions = tuple(sorted({session for session, *_ in trials}))
    split = "val" if trials[0][3] is not None else "test"
    return Recordings(split, sessions, CLASSES, made, [], [], [0] * len(made), memory)


TRIALS = [
    ("a", "Random", [1, 0, 2, 2, SILENCE], [1, 2, SILENCE]),  # right
    ("b", "Harvard", [3, 0, 4, 0, 0], [3, 5, SILENCE]),  # one substituted, one deleted
    ("a", "Random", [6, 0, 6, 7, 0, 8, SILENCE], [6, 6, 7, SILENCE]),  # one inserted
    ("b", "Harvard", [9, 9], [9, 9, 10]),  # 2 frames for 4: infeasible, two deletions
    ("b", None, [0, 0, 0], [11]),  # all deleted
]


@pytest.fixture(scope="module")
def labelled():
    recordings = recordings_of(TRIALS)
    batches = EvaluationBatches(recordings, 4, 8, 2)
    return evaluate(SCORER, PARAMS, batches, recordings, normalize_by="frames")


def test_trials_keep_the_order_of_the_recordings(labelled):
    assert [result.trial.number for result in labelled.trials] == [10, 11, 12, 13, 14]
    assert [result.phonemes for result in labelled.trials] == [
        [1, 2, SILENCE],
        [3, 4],
        [6, 6, 7, 8, SILENCE],
        [9],
        [],
    ]


def test_every_batch_tells_the_watchdog_that_it_goes_on(monkeypatch):
    told = []
    monkeypatch.setattr(scoring, "alive", lambda: told.append(1))
    recordings = recordings_of(TRIALS)
    batches = EvaluationBatches(recordings, 1, 8, 1)
    evaluate(SCORER, PARAMS, batches, recordings)
    assert len(told) == len(batches) == 5


def test_the_loss_is_ctc_of_the_feasible_trials(labelled):
    def frame_cost(best: bool) -> float:
        return math.log(math.exp(CONFIDENCE) + CLASSES - 1) - (CONFIDENCE if best else 0)

    # Trial 14: three blank frames, one label: 6 alignments, by the number of frames emitting it.
    logits = np.log(sum(np.exp(CONFIDENCE * (3 - n)) * (4 - n) for n in (1, 2, 3)))
    expected = 3 * frame_cost(False) - logits
    last = labelled.trials[4]
    assert last.nats == pytest.approx(expected, rel=1e-5)
    assert labelled.trials[0].nats == pytest.approx(5 * frame_cost(True), rel=0.05)
    feasible = [result for result in labelled.trials if result.trial.number != 13]
    found = labelled.to_dict()
    total = sum(result.nats for result in feasible)
    assert found["nats_per_label"] == pytest.approx(total / 11)
    assert found["nats_per_frame"] == pytest.approx(total / (5 + 5 + 7 + 3))
    mean = np.mean([result.nats / result.frames for result in feasible])
    assert found["loss"] == pytest.approx(float(mean))


def test_infeasible_trials_are_named(labelled):
    assert labelled.infeasible == ["b/block 2/trial 13"]
    assert labelled.trials[3].nats == 0
    assert labelled.scalars()["infeasible"] == 1


def test_the_example_is_of_median_length_and_unpadded(labelled):
    example = labelled.example
    assert example.result.trial.number == 10
    assert example.features.shape == (10, CLASSES)
    assert example.stride == 2
    assert example.probabilities.shape == (5, CLASSES)
    np.testing.assert_allclose(example.probabilities.sum(axis=-1), 1, rtol=1e-5)
    assert example.probabilities.argmax(axis=-1).tolist() == TRIALS[0][2]


def test_batch_size_and_devices_change_nothing(labelled):
    recordings = recordings_of(TRIALS)
    mesh = data_mesh(jax.devices()[:2])
    batches = EvaluationBatches(recordings, 2, 8, 1)
    params = jax.device_put(PARAMS, replicated(mesh))
    spread = evaluate(make_scorer(MODEL, mesh), params, batches, recordings)
    for one, other in zip(labelled.trials, spread.trials, strict=True):
        assert one.phonemes == other.phonemes
        assert one.nats == pytest.approx(other.nats, rel=1e-5)


def test_batches_that_the_devices_do_not_divide_are_filled_up(labelled):
    recordings = recordings_of(TRIALS)
    mesh = data_mesh(jax.devices()[:4])
    params = jax.device_put(PARAMS, replicated(mesh))
    batches = EvaluationBatches(recordings, 3, 8, 1)
    spread = evaluate(make_scorer(MODEL, mesh), params, batches, recordings)
    for one, other in zip(labelled.trials, spread.trials, strict=True):
        assert one.phonemes == other.phonemes
        assert one.nats == pytest.approx(other.nats, rel=1e-5)


def test_trials_whose_output_is_not_finite_are_named():
    recordings = recordings_of(TRIALS)
    assert recordings.memory is not None
    recordings.memory[2] = np.full_like(recordings.memory[2], np.nan)
    batches = EvaluationBatches(recordings, 4, 8, 2)
    found = evaluate(SCORER, PARAMS, batches, recordings)
    assert found.nonfinite == found.to_dict()["nonfinite"] == ["a/block 2/trial 12"]
    assert "not finite for 1 trial: a/block 2/trial 12" in format_table(found)


@pytest.mark.slow
def test_a_language_model_joins_the_beam():
    sizes = dict(gate=2, stem=3, patch=2, stride=2, d=8, layers=2, upper=1, heads=2, state=4)
    further = dict(expand=2, kernel=2, modes=2, flow=1, joint=8, predictor="stateless")
    plain = dict(smoothing=0.0, session="none", dropout=0.0, stochastic_depth=0.0, head_scale=1.0)
    config = {"name": "modessm", **sizes, **further, **plain, "causal": False, "dtype": "float32"}
    model = build(config, channels=CLASSES, sessions=2, hides_bins=False, seed=0)
    params = jax.tree.map(jnp.asarray, model.params)
    params["transducer"]["bias"] = params["transducer"]["bias"].at[0].set(-3.0)  # it says much
    wanted = jnp.where(jnp.arange(CLASSES) == 7, 0.0, -50.0)
    fusion = Fusion(
        start=lambda batch: jnp.zeros((batch,), jnp.int32),
        score=lambda state: jnp.broadcast_to(wanted, (*state.shape, CLASSES)),
        advance=lambda state, labels: state,
        weight=1.0,
    )
    recordings = recordings_of(TRIALS[:2])
    batches = EvaluationBatches(recordings, 2, 2, 1)
    alone, fused = (
        evaluate(make_scorer(model, ONE_DEVICE, width=2, fusion=given), params, batches, recordings)
        for given in (None, fusion)
    )
    assert {label for result in fused.trials for label in result.rnnt or []} == {7}
    assert len({label for result in alone.trials for label in result.rnnt or []}) > 1
    with pytest.raises(ValueError, match="a beam of 2 or more"):
        make_scorer(model, ONE_DEVICE, fusion=fusion)


@pytest.mark.slow
def test_a_trial_is_damaged_alike_in_whatever_batch_it_is():
    random = np.random.default_rng(0)
    features = Sequence.from_lengths(
        jnp.asarray(random.normal(size=(4, 30, 50))), jnp.asarray([30, 20, 30, 25])
    )
    corruption = Corruption(dropped=0.3, jitter=2, noise=0.5)
    trials, order = jnp.asarray([7, 3, 9, -1]), jnp.asarray([2, 0])
    found = damaged(features, trials, corruption, damage_root())
    some = jax.tree.map(lambda x: x[order], features)
    again = damaged(some, trials[order], corruption, damage_root())
    np.testing.assert_array_equal(again.values, found.values[order])
    silent = np.asarray((found.values == 0).all(axis=1))
    assert 0.1 < silent.mean() < 0.5
    assert len(np.unique(silent, axis=0)) == 4  # each trial loses channels of its own


def test_a_split_without_labels_gets_predictions_and_counts_only():
    recordings = recordings_of([(s, c, path, None) for s, c, path, _ in TRIALS])
    batches = EvaluationBatches(recordings, 4, 8, 2)
    evaluation = evaluate(SCORER, PARAMS, batches, recordings)
    assert evaluation.scalars() == {}
    found = evaluation.to_dict()
    assert "no labels" in found["note"]
    assert not {"per", "loss", "nats_per_label", "infeasible"} & set(found)
    assert found["trials"] == 5
    assert found["decoded_phonemes"] == 11
    assert found["sessions"]["b"] == {"trials": 3, "decoded_phonemes": 3}
    with pytest.raises(ValueError, match="no labels"):
        _ = evaluation.edits
    assert [result.prediction() for result in evaluation.trials][1] == {
        "session": "b",
        "block_num": 2,
        "trial_num": 11,
        "phonemes": [3, 4],
    }


def test_batches_that_miss_a_trial_are_refused():
    recordings = recordings_of(TRIALS)
    batches = list(EvaluationBatches(recordings, 4, 8, 2))
    with pytest.raises(ValueError, match="4 trials"):
        evaluate(SCORER, PARAMS, batches[:1], recordings)
    with pytest.raises(ValueError, match="9 trials, 5 of them"):
        evaluate(SCORER, PARAMS, [*batches, batches[0]], recordings)


def test_real_validation_recordings_are_scored(shared_data):
    recordings = read_recordings(shared_data / "spoken_digits", "val", sessions=["fsdd.george"])

    def chance(params, features, session) -> Outputs:
        del session
        shape = (*features.mask[:, ::4].shape, CLASSES)
        logits = Sequence(jnp.zeros(shape) + params["gain"], features.mask[:, ::4])
        return Outputs(logits, {"phoneme": logits}, {})

    batches = EvaluationBatches(recordings, 32, 64, 1)
    scorer = make_scorer(MODEL._replace(apply=chance), ONE_DEVICE)
    evaluation = evaluate(scorer, PARAMS, batches, recordings)
    # Nothing but blanks is decoded: every phoneme is a deletion.
    assert evaluation.edits.rate == 1
    assert evaluation.edits.deletions == evaluation.edits.reference_length == 420
    assert list(evaluation.to_dict()["sessions"]) == ["fsdd.george"]
