"""The benchmark of streams counts every push, and tells what differs from the whole."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import optax
import pytest

from benchmarks.streaming import __main__ as command
from benchmarks.streaming import equality, latency
from modessm_jax.data.recordings import read_recordings
from modessm_jax.runs.checkpoints import Checkpoints
from modessm_jax.runs.history import History
from modessm_jax.runs.load import describe_data
from modessm_jax.runs.state import create_state
from modessm_jax.runtime.mesh import data_mesh
from tests.data.layout import write_split
from tests.streaming.test_stream import bins_of, echo
from tests.streaming.tiny import CHANNELS, run_of


def test_as_many_pushes_are_timed_as_are_asked_for():
    decoder: Any = SimpleNamespace(sessions=("a",), stream=lambda session: echo()[0])
    found = latency.measure(decoder, [bins_of(*[3, 0] * 10), bins_of(*[7] * 9)], steps=12)
    assert all(len(part) == 12 for part in found[:4]) and len(found.finish) == 3
    assert (found.total >= found.model).all() and (found.total > 0).all()


def test_pieces_are_all_of_the_bins():
    bins = np.arange(200)
    cut = [*equality.pieces(bins, np.random.default_rng(0), most=7)]
    np.testing.assert_array_equal(np.concatenate(cut), bins)
    assert {len(piece) for piece in cut} <= set(range(1, 8)) and len(cut) > 28


@pytest.mark.slow
def test_a_run_is_compared_with_its_stream(tmp_path: Path, monkeypatch, capsys):
    root, workdir = tmp_path / "data", tmp_path / "run"
    workdir.mkdir()
    for session in "ab":
        write_split(root, session, "val", [40, 3, 77], channels=CHANNELS)
    data = {"root": str(root), "sessions": [], "batch_size": 4, "buckets": 1}
    data |= {"table": "", "memory_gib": 1.0, "normalize": "running", "normalize_window": 1.0}
    run = run_of("gru", **data)
    (workdir / "config.json").write_text(json.dumps(run.config))
    (workdir / "dataset.json").write_text(json.dumps(describe_data(read_recordings(root, "val"))))
    state = create_state(run.params, optax.sgd(0.1), data_mesh(), ema=False)
    Checkpoints(workdir, keep=1).save_best(7, state, History())
    arguments = ["streaming", "equality", "--workdir", str(workdir)]
    monkeypatch.setattr("sys.argv", arguments)
    command.main()
    assert "phonemes 0, times 0" in capsys.readouterr().out
    monkeypatch.setattr(command, "TOLERANCE", -1.0)
    with pytest.raises(SystemExit, match="do not equal the whole trials"):
        command.main()
