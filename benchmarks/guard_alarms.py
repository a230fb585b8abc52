"""Whether the divergence guard would have stayed silent: replays runs that are over.

    python -m benchmarks.guard_alarms RUN... [--window 64] [--rise 1.5]

Each RUN is a working directory with results.json and a metrics.jsonl that has a line for every
step (`--config.training.log_every=1`). Prints, for each, the first alarm, if any, and how much of
a rise that would have been one the worst rise was; and how many runs had an alarm.
"""

import argparse
import json
from pathlib import Path
from typing import Any, NamedTuple

from modessm_jax.training.guard import Guard, Setback, excess
from modessm_jax.training.history import History
from modessm_jax.training.settings import GuardSettings


class Replay(NamedTuple):
    """What the guard makes of a run."""

    steps: int
    alarm: Setback | None  # the first
    worst: float  # the highest that all but a few of the latest steps were, as a share of an alarm


def replay(lines: list[dict[str, Any]], begun: set[int], settings: GuardSettings) -> Replay:
    """Judges the steps of a run.

    Args:
      lines: of metrics.jsonl, one for each step.
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


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.guard_alarms", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--window", type=int, default=GuardSettings.window)
    parser.add_argument("--rise", type=float, default=GuardSettings.rise)
    options = parser.parse_args()
    settings = GuardSettings(divergence=True, window=options.window, rise=options.rise)
    alarms = 0
    for run in options.runs:
        stages = json.loads((run / "results.json").read_text(encoding="utf-8"))["stages"]
        lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        found = replay(
            [json.loads(line) for line in lines], {stage["begun"] for stage in stages}, settings
        )
        alarms += found.alarm is not None
        said = "silent" if found.alarm is None else f"alarm at step {found.alarm.found}"
        print(f"{run}: {found.steps} steps, {said}, worst rise {found.worst:.2f} of an alarm's")
    print(f"{alarms} of {len(options.runs)} runs had an alarm")


if __name__ == "__main__":
    main()
