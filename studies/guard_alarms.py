"""Whether the divergence guard would have stayed silent: replays runs that are over.

    python -m studies.guard_alarms RUN... [--window 64] [--rise 1.5]

Each RUN is a working directory with results.json and a metrics.jsonl that has a line for every
step (`--config.training.log_every=1`). Prints, for each, the first alarm, if any, and how much of
a rise that would have been one the worst rise was; and how many runs had an alarm.
"""

import argparse
import json
from pathlib import Path

from modessm_jax.training.settings import GuardSettings
from studies.stability.replay import read_lines, replay


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m studies.guard_alarms", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--window", type=int, default=GuardSettings.window)
    parser.add_argument("--rise", type=float, default=GuardSettings.rise)
    options = parser.parse_args()
    settings = GuardSettings(divergence=True, window=options.window, rise=options.rise)
    alarms = 0
    for run in options.runs:
        stages = json.loads((run / "results.json").read_text(encoding="utf-8"))["stages"]
        found = replay(read_lines(run), {stage["begun"] for stage in stages}, settings)
        alarms += found.alarm is not None
        said = "silent" if found.alarm is None else f"alarm at step {found.alarm.found}"
        print(f"{run}: {found.steps} steps, {said}, worst rise {found.worst:.2f} of an alarm's")
    print(f"{alarms} of {len(options.runs)} runs had an alarm")


if __name__ == "__main__":
    main()
