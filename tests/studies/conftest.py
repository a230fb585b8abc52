"""A tiny run of MODE-SSM, as training leaves it, for the studies to read."""

import json
import shutil
from pathlib import Path

import jax
import optax
import pytest

from configs.modessm import get_config
from modessm_jax.data.recordings import read_recordings
from modessm_jax.runs.checkpoints import Checkpoints
from modessm_jax.runs.history import History
from modessm_jax.runs.load import build_model, describe_data
from modessm_jax.runs.state import create_state
from modessm_jax.runtime.files import write_json
from modessm_jax.runtime.mesh import data_mesh
from tests.data.layout import write_split, write_trial
from tests.runs.test_checkpoints import numbers

TINY = {"gate": 2, "d": 8, "layers": 2, "heads": 2, "state": 2, "kernel": 2, "joint": 4}
TINY |= {"flow": 1, "causal": True}


@pytest.fixture(scope="session")
def workdir(tmp_path_factory) -> Path:
    """A run of two stages, whose checkpoint is of the step at which the second began.

    Its validation split has one session of three trials in two blocks, which differ in mode.
    """
    root, workdir = tmp_path_factory.mktemp("data"), tmp_path_factory.mktemp("run")
    file = write_split(root, "a", "val", [24, 20])
    write_trial(file, 2, bins=16, labels=[3, 40], block=2)
    write_json(root / "truth.json", {"a": {"1": "vocalized", "2": "silent"}})
    config = get_config("small").to_dict()
    config["model"] |= TINY
    config["data"] |= {"root": str(root), "batch_size": 2, "buckets": 1}
    recordings = read_recordings(root, "val")
    write_json(workdir / "config.json", config)
    write_json(workdir / "dataset.json", describe_data(recordings))
    params = build_model(config, recordings.channels, 1).params
    params = jax.tree.map(lambda x: 1.5 * x + 0.01, params)
    state = create_state(params, optax.sgd(0.1), data_mesh(), ema=False)
    stages = [{"name": "ctc_warmup", "begun": 0}, {"name": "joint", "begun": 4}]
    history, checkpoints = History(stages=stages), Checkpoints(workdir, keep=1)
    history.evaluated(4, {"per": 0.5}, "per")
    checkpoints.save_best(4, state, history)
    checkpoints.save(4, state, numbers(), history)
    lines = [
        {"step": 4, "kind": "train", "loss/phoneme": 2.0},
        {"step": 4, "kind": "evaluation", "per": 0.5},
        {"step": 6, "kind": "train", "loss/phoneme": 9.0, "loss/rnnt": 9.0},
        {"step": 6, "kind": "train", "loss/phoneme": 1.0, "loss/rnnt": 1.5},  # resumed
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (workdir / "metrics.jsonl").write_text(text)
    return workdir


@pytest.fixture
def run(workdir, tmp_path) -> Path:
    """The same run with batches that can be divided among the four devices of the tests."""
    copy = shutil.copytree(workdir, tmp_path / "run")
    config = json.loads((copy / "config.json").read_text())
    config["data"]["batch_size"] = 4
    write_json(copy / "config.json", config)
    return copy
