"""A finished run, opened again: the same model, the same session ids, and plain words if not."""

import dataclasses
import json
import shutil
from pathlib import Path

import h5py
import jax
import numpy as np
import optax
import pytest

from experiments.evaluate import main
from modessm_jax.data.recordings import read_recordings
from modessm_jax.data.validation import DataError
from modessm_jax.evaluation.scoring import evaluate_run
from modessm_jax.runs.checkpoints import CheckpointError, Checkpoints
from modessm_jax.runs.history import History
from modessm_jax.runs.load import build_model, describe_data, export, load_run, read_split
from modessm_jax.runs.state import create_state, evaluation_params
from modessm_jax.runtime.files import write_json
from modessm_jax.runtime.mesh import data_mesh
from tests.data.layout import write_split
from tests.toy import initial_params

LENGTHS = [60, 72, 66]


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """Two sessions; only the second has trials to test on."""
    root = tmp_path_factory.mktemp("data")
    for session in ("a", "b"):
        write_split(root, session, "val", LENGTHS)
    write_split(root, "b", "test", LENGTHS)
    return root


def config_of(root: Path) -> dict:
    return {
        "data": {
            "root": str(root),
            "sessions": [],
            "table": "",
            "batch_size": 4,
            "buckets": 1,
            "memory_gib": 1.0,
        },
        "augment": {"time_masks": 2},
        "model": {
            "name": "gru",
            "d": 8,
            "layers": 1,
            "patch": 4,
            "stride": 4,
            "taps": 3,
            "input_dropout": 0.0,
            "dropout": 0.1,
            "session": "affine",
            "smoothing": 1.0,
            "bidirectional": True,
            "dtype": "float32",
        },
        "objective": {"normalize_by": "frames", "weights": {"phoneme": 1.0}},
        "training": {"seed": 3},
    }


@pytest.fixture(scope="module")
def workdir(tmp_path_factory, root) -> Path:
    """A run whose best model has parameters nobody would guess."""
    workdir = tmp_path_factory.mktemp("run")
    config = config_of(root)
    (workdir / "config.json").write_text(json.dumps(config))
    recordings = read_recordings(root, "val")
    write_json(workdir / "dataset.json", describe_data(recordings))
    params = build_model(config, recordings.channels, len(recordings.sessions)).params
    leaves, structure = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    odd = [x + 0.3 * jax.random.normal(k, x.shape) for x, k in zip(leaves, keys, strict=True)]
    params = jax.tree.unflatten(structure, odd)
    state = create_state(params, optax.sgd(0.1), data_mesh(), ema=False)
    Checkpoints(workdir, keep=1).save_best(7, state, History())
    return workdir


@pytest.fixture(scope="module")
def evaluated(workdir):
    return evaluate_run(load_run(workdir), "val")


def test_the_best_model_is_scored_on_every_trial(workdir, evaluated):
    assert load_run(workdir).step == 7
    assert len(evaluated.trials) == 2 * len(LENGTHS)
    assert evaluated.to_dict()["per"] is not None


def test_session_ids_are_those_of_training(workdir, root, evaluated, tmp_path):
    shutil.copytree(root / "b", tmp_path / "b")
    moved = evaluate_run(load_run(workdir), "val", tmp_path)
    expected = [result.nats for result in evaluated.trials if result.trial.session == "b"]
    assert [result.nats for result in moved.trials] == pytest.approx(expected, rel=1e-5)
    other = [result.nats for result in evaluated.trials if result.trial.session == "a"]
    assert expected != pytest.approx(other, rel=1e-2)


@pytest.mark.parametrize("memory_gib", [8.0, 0.0])
def test_data_are_known_by_their_values_wherever_they_lie(root, tmp_path, memory_gib):
    def described():
        return describe_data(read_recordings(moved, "val", memory_gib=memory_gib))

    moved = Path(shutil.copytree(root, tmp_path / "moved"))
    before = describe_data(read_recordings(root, "val"))
    assert described() == before
    with h5py.File(moved / "b" / "data_val.hdf5", "a") as handle:
        stored = handle["trial_0001/input_features"]
        assert isinstance(stored, h5py.Dataset)
        stored[60:] = 0.0  # the last bins and the padding
    changed = described()
    assert changed["trials"]["val"]["a"] == before["trials"]["val"]["a"]
    assert changed["trials"]["val"]["b"] != before["trials"]["val"]["b"]
    with h5py.File(moved / "a" / "data_val.hdf5", "a") as handle:
        handle["trial_0001"].attrs["sentence_label"] = "another sentence"
    assert described()["trials"]["val"]["a"] != before["trials"]["val"]["a"]


def test_sessions_without_training_alone_are_refused(workdir, tmp_path):
    write_split(tmp_path, "c", "val", LENGTHS)
    with pytest.raises(DataError, match="not trained on the sessions c"):
        evaluate_run(load_run(workdir), "val", tmp_path)


def test_moved_data_are_read_in_the_sessions_of_training(workdir, root, tmp_path):
    run = load_run(workdir)
    data = run.config["data"] | {"sessions": ["b"], "table": str(root / "table.csv")}
    chosen = run._replace(config=run.config | {"data": data})
    moved = Path(shutil.copytree(root, tmp_path / "moved"))
    (moved / "table.csv").write_text("")  # it lay among the data, and has moved with them
    with pytest.raises(DataError, match=r"moved/table\.csv"):
        read_split(chosen, "val", moved)
    (moved / "table.csv").write_text("Date,Block number,Corpus\n")
    chosen.config["data"]["table"] = ""
    for place in (None, moved):
        recordings, _ = read_split(chosen, "val", place)
        assert {trial.session for trial in recordings.trials} == {"b"}


def test_a_directory_without_a_run_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=str(tmp_path)):
        load_run(tmp_path)


def test_the_job_prints_the_table_and_writes_predictions(workdir, tmp_path, capsys):
    predictions = tmp_path / "new folder" / "test.jsonl"
    main(["--workdir", str(workdir), "--split", "test", "--predictions", str(predictions)])
    printed = capsys.readouterr().out
    assert "step 7" in printed
    assert "no labels" in printed
    lines = [json.loads(line) for line in predictions.read_text().splitlines()]
    assert len(lines) == len(LENGTHS)
    assert set(lines[0]) == {"session", "block_num", "trial_num", "phonemes"}


def test_the_job_fails_in_plain_words(tmp_path):
    with pytest.raises(SystemExit, match="give the workdir of a training run"):
        main(["--workdir", str(tmp_path)])


def test_figures_are_not_lost_with_the_predictions(workdir, tmp_path, capsys):
    (tmp_path / "taken").mkdir()
    with pytest.raises(SystemExit, match="taken"):
        main(["--workdir", str(workdir), "--predictions", str(tmp_path / "taken")])
    assert "95 % interval of the PER" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--beam", "0"], "beam of width 0"),
        (["--beam", "4"], "no transducer"),
        (["--denoise"], "no flow bridge"),
        (["--phoneme_lm", "nowhere.arpa"], "nowhere.arpa"),
    ],
)
def test_what_the_model_cannot_do_is_refused_in_a_sentence(workdir, more, message):
    with pytest.raises(SystemExit, match=message):
        main(["--workdir", str(workdir), *more])


def test_a_weight_of_nothing_is_refused(workdir, capsys):
    with pytest.raises(SystemExit):
        main(["--workdir", str(workdir), "--lm_weight", "0.5"])
    assert "--lm_weight needs --phoneme_lm" in capsys.readouterr().err


@pytest.mark.parametrize("ema", [True, False])
def test_what_is_written_is_what_is_evaluated(tmp_path, ema):
    state = create_state(initial_params(1), optax.sgd(0.1), data_mesh(), ema=ema)
    if ema:
        state = dataclasses.replace(state, ema=jax.tree.map(lambda x: x + 1, state.ema))
    Checkpoints(tmp_path, keep=1).save_best(7, state, History())
    write_json(tmp_path / "config.json", {})
    write_json(tmp_path / "dataset.json", {"sessions": ["b", "a"]})
    out = tmp_path / "new folder" / "model.npz"
    assert export(tmp_path, out) == 7
    with np.load(out) as arrays:
        assert set(arrays) == {
            "encoder/kernel",
            "encoder/bias",
            "session/offset",
            "phoneme/kernel",
            "interctc/kernel",
            "mask/embedding",
            "sessions",
        }
        assert arrays["sessions"].tolist() == ["b", "a"]
        expected = evaluation_params(state)["encoder"]["kernel"]
        np.testing.assert_array_equal(arrays["encoder/kernel"], expected)
        assert arrays["encoder/kernel"].dtype == np.float32
    with pytest.raises(CheckpointError, match="no checkpoint here"):
        export(tmp_path, out, step=7)
    assert not list(tmp_path.rglob("*.partial"))
