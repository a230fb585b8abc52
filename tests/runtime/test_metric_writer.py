import json
import os

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from modessm_jax.runtime import metric_writer
from modessm_jax.runtime.files import write_text
from modessm_jax.runtime.metric_writer import MetricWriter


def steps(workdir):
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return [(json.loads(line)["step"], json.loads(line)["kind"]) for line in lines]


def test_a_resumed_run_drops_what_it_will_write_again_and_a_torn_line(tmp_path):
    with MetricWriter(tmp_path) as writer:
        for step in (2, 4, 6):
            writer.write(step, "train", {"loss": 1.0 / step})
        assert writer.lines == 3
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 8, "ki')
    with MetricWriter(tmp_path, lines=2) as writer:
        writer.note(4, "rollback", {"to": 4})
        assert (writer.lines, writer.rollbacks) == (3, 0)
    assert steps(tmp_path) == [(2, "train"), (4, "train"), (4, "rollback")]
    with MetricWriter(tmp_path, lines=4) as writer:
        assert (writer.lines, writer.rollbacks) == (3, 1)
    with MetricWriter(tmp_path) as writer:
        assert writer.lines == 0
    assert steps(tmp_path) == []


def test_figures_reach_tensorboard(tmp_path):
    with MetricWriter(tmp_path) as writer:
        writer.write(3, "train", {"loss": 0.5})
        writer.chart(3, "time", {"steps_per_second": 7.0})
    board = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert sorted(board.Tags()["tensors"]) == ["time/steps_per_second", "train/loss"]
    assert "steps_per_second" not in (tmp_path / "metrics.jsonl").read_text()


def test_a_write_that_dies_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "results.json"
    write_text(path, "old")

    def die(*_):
        raise OSError("disk full")

    monkeypatch.setattr(metric_writer.os, "replace", die)
    with pytest.raises(OSError, match="disk full"):
        write_text(path, "new")
    monkeypatch.undo()
    assert path.read_text() == "old"
    assert os.path.exists(path)
