"""What the log tells of a run that goes back, whether it was killed or not."""

import dataclasses
import json
from typing import Any

import jax
import numpy as np
import pytest

from modessm_jax.runs.history import History
from modessm_jax.runtime.metric_writer import MetricWriter
from modessm_jax.runtime.progress import Clock, Progress
from modessm_jax.training import loop
from modessm_jax.training.logbook import Logbook
from modessm_jax.training.settings import Settings
from modessm_jax.training.step import StepReport
from tests.training.test_loop import TRAINING, Killed, configuration, run

GUARD = {"divergence": True, "window": 16, "rise": 1.3, "tries": 3, "lr_factor": 0.5}


class Played:
    """Stands for a compiled step: its losses are given, and nothing is learned."""

    def __init__(self, loss):
        self.loss = loss

    def lower(self, *_):
        return self

    compile = lower

    def __call__(self, state, batch):
        with jax.transfer_guard("allow"):
            step = int(state.step) + 1
            made = jax.device_put(np.int32(step), state.step.sharding)
            scalars = {name: np.float32(0.0) for name in ("skipped", "valid", "infeasible")}
            scalars |= {"loss": np.float32(self.loss(step, float(state.rate)))}
            scalars |= {"gradient_norm": np.float32(1.0)}
        none = np.full(len(batch.trial), -1, np.int32)
        return dataclasses.replace(state, step=made), StepReport(scalars, none, none)


def found(workdir):
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return [(line["step"], line.get("found", line["kind"])) for line in map(json.loads, lines)]


@pytest.mark.slow
def test_a_setback_whose_line_a_deeper_one_removed_is_written_with_that(monkeypatch, tmp_path):
    def loss(step, rate):
        if step == 27 or (rate == 1.0 and step > 33) or (rate == 0.5 and step > 34):
            return 5.0
        return 1.2 if rate == 0.5 and step > 32 else 1.0

    monkeypatch.setattr(loop, "make_step", lambda *_: Played(loss))
    config = configuration(
        GUARD, steps=40, ema_decay=0.0, log_every=10, eval_every=40, save_every=8, keep=1
    )
    results = run(tmp_path / "straight", config=config)
    assert [(s["found"], s["to"]) for s in results["rollbacks"]] == [(36, 32), (37, 24)]
    whole = [(10, "train"), (20, "train"), (24, 36), (24, 37), (30, "train"), (40, "train")]
    assert found(tmp_path / "straight") == [*whole, (40, "evaluation")]

    visits = []

    def kill(done):
        visits.append(done)
        if done == 34 and visits.count(done) == 3:  # saved at step 32, after both
            raise Killed
        return False

    with pytest.raises(Killed):
        run(tmp_path / "killed", config=config, stop=kill)
    run(tmp_path / "killed", config=config)
    record = (tmp_path / "straight" / "metrics.jsonl").read_bytes()
    assert (tmp_path / "killed" / "metrics.jsonl").read_bytes() == record


def test_setbacks_that_the_log_has_are_not_written_again(tmp_path):
    clock, history = Clock(), History(rollbacks=[{"found": 36}, {"found": 37}])
    training: dict[str, Any] = TRAINING
    settings = Settings(
        **{name: value for name, value in training.items() if name not in loop.BY_STAGE}
    )
    for lines, after in ((0, [36, 37]), (1, [36, 37]), (2, [36, 37, 38])):
        if lines == 2:
            history.rollbacks.append({"found": 38})
        with MetricWriter(tmp_path, lines=lines) as writer:
            progress = Progress(40, clock)
            Logbook(history, writer, progress, clock, str, settings, []).rollbacks(24)
            assert writer.lines == len(after)
        assert [name for _, name in found(tmp_path)] == after
