"""The divergence guard replayed over the logs of runs that are over."""

import json

import numpy as np
import pytest

from configs import common
from modessm_jax.training.settings import GuardSettings
from studies.guard_alarms import main, replay

SETTINGS = GuardSettings(**common.guard() | {"divergence": True, "window": 16})


def lines(losses) -> list[dict]:
    return [
        {"step": i, "kind": "train", "skipped": 0.0, "loss": loss, "gradient_norm": 1.0}
        for i, loss in enumerate(losses, 1)
    ]


def falling(steps: int) -> list[float]:
    return list(3.0 * np.exp(-np.arange(steps) / 50) + 0.01 * (np.arange(steps) % 3))


def test_a_falling_loss_raises_no_alarm() -> None:
    found = replay(lines(falling(100)), (), SETTINGS)
    assert found.alarm is None and found.steps == 100 and found.worst < 1.0


def test_a_lasting_rise_does_and_only_the_first_counts() -> None:
    found = replay(lines(falling(60) + [9.0] * 20), (), SETTINGS)
    assert found.alarm is not None and 60 < found.alarm.found < 70
    assert found.worst > 1.0 and found.steps == 80


def test_a_stage_that_begins_may_cost_more() -> None:
    assert replay(lines([0.5] * 40 + [5.0] * 40), {40}, SETTINGS).alarm is None
    assert replay(lines([0.5] * 40 + [5.0] * 40), (), SETTINGS).alarm is not None


def test_evaluations_are_passed_over_and_gaps_refused() -> None:
    given = lines(falling(40))
    assert replay([*given, {"step": 40, "kind": "evaluation"}], (), SETTINGS).steps == 40
    with pytest.raises(ValueError, match=r"step 3 follows that of step 1.*log_every=1"):
        replay([given[0], given[2]], (), SETTINGS)


def test_the_command_counts_runs_with_an_alarm(tmp_path, capsys) -> None:
    for name, losses in (("calm", falling(60)), ("rises", falling(60) + [9.0] * 40)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "results.json").write_text(json.dumps({"stages": []}))
        text = "".join(json.dumps(line) + "\n" for line in lines(losses))
        (tmp_path / name / "metrics.jsonl").write_text(text)
    main([str(tmp_path / "calm"), str(tmp_path / "rises"), "--window", "16"])
    calm, rises, total = capsys.readouterr().out.splitlines()
    assert "calm: 60 steps, silent" in calm and "rises: 100 steps, alarm at step 6" in rises
    assert total == "1 of 2 runs had an alarm"
