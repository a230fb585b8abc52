"""What the divergence guard makes of a run that is over, made with it or without."""

import json
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from modessm_jax.runs.history import History
from modessm_jax.training.guard import Guard, Setback, excess
from modessm_jax.training.settings import GuardSettings


class Replay(NamedTuple):
    """What the guard makes of a run."""

    steps: int
    alarm: Setback | None  # the first
    worst: float  # the highest that all but a few of the latest steps were, as a share of an alarm


def replay(
    lines: Iterable[Mapping[str, Any]], begun: Collection[int], settings: GuardSettings
) -> Replay:
    """Judges the steps of a run that never went back.

    Args:
      lines: of metrics.jsonl, one for each step (`training.log_every` of 1).
      begun: steps with which stages begin.
      settings: of the guard.

    Raises:
      ValueError: a line stands for several steps, or for none.
    """
    history = History()
    guard = Guard(settings, history)
    alarm, worst, step = None, 0.0, 0
    for line in (line for line in lines if line["kind"] == "train"):
        step += 1
        if line["step"] != step:
            raise ValueError(
                f"the line of step {line['step']} follows that of step {step - 1}; train with "
                "--config.training.log_every=1"
            )
        alarm = guard.judge(step, line) if alarm is None else alarm
        worst = max(worst, excess(history.trend, settings))
        if step in begun:
            guard.begin_stage()
    return Replay(step, alarm, worst)


def read_lines(workdir: Path) -> list[dict[str, Any]]:
    """The lines of a run's metrics.jsonl."""
    text = (workdir / "metrics.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]
