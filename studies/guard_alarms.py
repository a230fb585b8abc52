"""Would the divergence guard have raised an alarm? Replays its decisions from the logs of runs.

    python -m studies.guard_alarms RUN... [--window 64] [--rise 1.5]

Each RUN is a working directory with results.json and a metrics.jsonl that has a line for every
step (`--config.training.log_every=1`). Prints, for each, the first alarm, if any, and the worst
rise of the loss as a fraction of the rise that raises an alarm; then how many runs had an alarm.
"""

import argparse
import json
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from configs import common
from modessm_jax.runs.history import History
from modessm_jax.training.guard import Guard, Rollback, excess
from modessm_jax.training.settings import GuardSettings
from studies.shared import read_log


class Replay(NamedTuple):
    """What the divergence guard would have found in a run."""

    steps: int
    alarm: Rollback | None  # the first
    worst: float  # the highest rise that lasted, as a fraction of an alarm's


def replay(
    lines: Iterable[Mapping[str, Any]], begun: Collection[int], settings: GuardSettings
) -> Replay:
    """Passes the steps of a run that was never rolled back to the guard.

    Args:
      lines: of metrics.jsonl, one for each step (`training.log_every` of 1).
      begun: steps at which stages begin.
      settings: of the guard.

    Raises:
      ValueError: a step has no line of its own.
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


def main(arguments: list[str] | None = None) -> None:
    guard = common.guard()
    parser = argparse.ArgumentParser(prog="python -m studies.guard_alarms", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="folders of runs")
    parser.add_argument(
        "--window", type=int, default=guard["window"], help="guard.window (%(default)s)"
    )
    parser.add_argument(
        "--rise", type=float, default=guard["rise"], help="guard.rise (%(default)s)"
    )
    options = parser.parse_args(arguments)
    changes = {"divergence": True, "window": options.window, "rise": options.rise}
    settings = GuardSettings(**guard | changes)
    alarms = 0
    for run in options.runs:
        stages = json.loads((run / "results.json").read_text(encoding="utf-8"))["stages"]
        found = replay(read_log(run), {stage["begun"] for stage in stages}, settings)
        alarms += found.alarm is not None
        outcome = "silent" if found.alarm is None else f"alarm at step {found.alarm.found}"
        print(f"{run}: {found.steps} steps, {outcome}, worst rise {found.worst:.2f} of an alarm's")
    print(f"{alarms} of {len(options.runs)} runs had an alarm")


if __name__ == "__main__":
    main()
