"""The cells of the stability study, and the outcome of the run in each.

A cell is a choice of peak rate, warm-up, clipping and final normalisation. Its run is trained
without the divergence guard, and the guard's decisions are replayed afterwards: the run diverged
where the guard would have raised an alarm, or where it stopped. Only then is a guarded run trained:
a guard that stays silent changes nothing.
"""

import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from modessm_jax.runtime.metric_writer import ROLLBACK
from modessm_jax.training.settings import GuardSettings
from studies.guard_alarms import replay
from studies.shared import read_log

WINDOW = 32  # of the guard, in steps: short, for runs of some hundred steps
SAVE_EVERY = 16  # of the guarded runs: only these are rolled back


class Cell(NamedTuple):
    """One setting of the four changes that the founding system made when its runs diverged."""

    rate: float  # peak learning rate
    warmup: int  # steps
    clip: float  # norm that gradients are clipped to
    norm: bool  # whether the fusion ends in a LayerNorm

    @property
    def name(self) -> str:
        """The name of the run's folder."""
        ending = "norm" if self.norm else "bare"
        return f"rate-{self.rate:g}-warmup-{self.warmup}-clip-{self.clip:g}-{ending}"

    def overrides(self, *, steps: int, guarded: bool) -> list[str]:
        """Arguments for `experiments.train`."""
        every = max(steps // 4, 1)
        values = {
            "optimizer.peak_lr": self.rate,
            "optimizer.end_lr": self.rate / 10,
            "optimizer.warmup_steps": self.warmup,
            "optimizer.clip_norm": self.clip,
            "model.fusion_norm": self.norm,
            "guard.divergence": guarded,
            "guard.window": WINDOW,
            "training.steps": steps,
            "training.log_every": 1,
            "training.eval_every": every,
            "training.save_every": SAVE_EVERY if guarded else every,
        }
        return [f"--config.{key}={value}" for key, value in values.items()]


def full_grid(
    rates: Sequence[float], warmups: Sequence[int], clips: Sequence[float], norms: Sequence[bool]
) -> list[Cell]:
    """All combinations, the highest rates first."""
    ordered = sorted(rates, reverse=True)
    return [Cell(*choice) for choice in itertools.product(ordered, warmups, clips, norms)]


def one_at_a_time(
    rates: Sequence[float], warmups: Sequence[int], clips: Sequence[float], norms: Sequence[bool]
) -> list[Cell]:
    """All first values; these with one other value, for each other value; and all last values."""
    first = Cell(rates[0], warmups[0], clips[0], norms[0])
    alone = [first._replace(rate=value) for value in rates]
    alone += [first._replace(warmup=value) for value in warmups]
    alone += [first._replace(clip=value) for value in clips]
    alone += [first._replace(norm=value) for value in norms]
    return list(dict.fromkeys([*alone, Cell(rates[-1], warmups[-1], clips[-1], norms[-1])]))


class Outcome(NamedTuple):
    """The outcome of a run.

    Attributes:
        losses: step and loss of every update, in order; steps repeat after a rollback.
        diverged: the step at which a rise that lasted was found, or the last one before the run
            stopped; None where neither happened. For a guarded run, the first rise.
        per: PER of the final model; None where the run stopped.
        best: lowest PER of all its evaluations.
        skipped: steps that were not finite.
        rollbacks: number of rollbacks; for a run that stopped, those still in its log.
        worst: its highest rise, as a fraction of an alarm's; 0 for a guarded run.
    """

    losses: list[tuple[int, float]]
    diverged: int | None
    per: float | None
    best: float | None
    skipped: int
    rollbacks: int
    worst: float


def read_outcome(workdir: Path, *, guarded: bool) -> Outcome:
    """Reads a run that is over, whether it was completed or stopped.

    Raises:
        OSError: there is no metrics.jsonl or no config.json.
    """
    lines, results = read_log(workdir), workdir / "results.json"
    losses = [(x["step"], x["loss"]) for x in lines if x["kind"] == "train" and "loss" in x]
    pers = [line["per"] for line in lines if line["kind"] == "evaluation"]
    # A second rollback, to an earlier step, removes the first from the log, not from the results.
    rollbacks = [line for line in lines if line["kind"] in ROLLBACK]
    if ended := results.exists():
        ending = json.loads(results.read_text(encoding="utf-8"))
        rollbacks = ending.get("rollbacks", ending.get("setbacks"))  # the latter in format 1
    alarm, worst = None, 0.0
    if not guarded:
        config: dict[str, Any] = json.loads((workdir / "config.json").read_text(encoding="utf-8"))
        replayed = replay(lines, (), GuardSettings(**{**config["guard"], "divergence": True}))
        alarm, worst = replayed.alarm and replayed.alarm.found, replayed.worst
    elif rollbacks:
        alarm = rollbacks[0]["found"]
    if not ended and alarm is None:
        alarm = losses[-1][0] if losses else 0
    return Outcome(
        losses=losses,
        diverged=alarm,
        per=pers[-1] if ended else None,
        best=min(pers, default=None),
        skipped=sum(line["kind"] == "skipped" for line in lines),
        rollbacks=len(rollbacks),
        worst=worst,
    )
