"""What a run writes and prints: its figures, and the trials to look at."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from modessm_jax.runs.history import History
from modessm_jax.runtime.metric_writer import MetricWriter
from modessm_jax.runtime.progress import Clock, Progress
from modessm_jax.text import percent
from modessm_jax.training.guard import DIVERGENCE
from modessm_jax.training.settings import Settings
from modessm_jax.training.stages import Stage
from modessm_jax.training.step import StepReport

_COUNTS = ("infeasible", "skipped", "valid")
_NAMED_AT_ONCE = 8


@dataclasses.dataclass
class Logbook:
    """Sums up the steps since the last line in the history, and writes the lines."""

    history: History
    writer: MetricWriter
    progress: Progress
    clock: Clock
    trial_name: Callable[[int], str]
    settings: Settings
    stages: Sequence[Stage]  # of the run

    @property
    def lines(self) -> int:
        """How many the log has."""
        return self.writer.lines

    def step(self, step: int, report: StepReport) -> None:
        """Adds the report of an update, in host memory."""
        self.history.add(report.scalars)
        self._name_infeasible(step, report.infeasible)
        if report.scalars["skipped"]:
            self._skipped(step, report)
        if step % self.settings.log_every == 0 or step == self.progress.steps:
            self.line(step)
        elif not report.scalars["skipped"]:
            self.progress.tick(step, self._figures(float(report.scalars["loss"])))

    def line(self, step: int) -> None:
        """Writes and shows the means over the steps since the last line, if there were any."""
        if not self.history.window:
            return
        means = self.history.drain(counts=_COUNTS)
        self.writer.write(step, "train", means)
        rate = self.progress.rate(step)
        times = {"steps_per_second": rate, "input_stall": self.clock.input_stall}
        self.writer.chart(step, "time", times)
        self.progress.show(step, self._figures(means.get("loss")), rate)

    def evaluation(self, step: int, metrics: Mapping[str, float], *, best: bool) -> None:
        """Writes and shows an evaluation."""
        self.writer.write(step, "evaluation", metrics)
        mark = " (best so far)" if best else ""
        self.progress.print(f"step {step}: {self._rates(metrics)}{mark}")

    def rollbacks(self, step: int) -> None:
        """Writes the rollbacks that the log of the run up to `step`, where it goes on, lacks.

        The last one led there; those before it may have led to later steps, whose lines are gone.
        """
        for rollback in self.history.rollbacks[self.writer.rollbacks :]:
            self.writer.note(step, "rollback", rollback)

    def _figures(self, loss: float | None) -> str:
        parts = ["no step was finite" if loss is None else f"loss {loss:.4f}"]
        if self.history.evaluations:
            parts.append(self._rates(self.history.evaluations[-1]))
        parts.append(f"waiting for data {percent(self.clock.input_stall)}")
        return "  ".join(parts)

    def _rates(self, metrics: Mapping[str, float | int]) -> str:
        """The error rate that is selected by, beside the usual one."""
        select_by = self.stages[len(self.history.stages) - 1].select_by
        names = [name for name in dict.fromkeys(("per", select_by)) if name in metrics]
        return "  ".join(
            f"{name.upper().replace('_', ' ')} {percent(metrics[name])}" for name in names
        )

    def _names(self, trials: Any) -> list[str]:
        return [self.trial_name(int(trial)) for trial in sorted(set(trials.tolist()) - {-1})]

    def _name_infeasible(self, step: int, trials: Any) -> None:
        new = [name for name in self._names(trials) if name not in self.history.infeasible]
        if new:
            self.history.infeasible += new
            self.progress.print(
                f"step {step}: too few frames for the labels of {_some(new)}; left out of the loss"
            )

    def _skipped(self, step: int, report: StepReport) -> None:
        trials = self._names(report.nonfinite)
        loss, norm = (float(report.scalars[name]) for name in ("loss", "gradient_norm"))
        facts = {"loss": repr(loss), "gradient_norm": repr(norm), "trials": trials}
        self.writer.note(step, "skipped", facts)
        self.progress.print(
            f"step {step}: skipped, the loss is {loss:g} and the gradient norm {norm:g}; "
            f"look at {_some(trials)}"
        )


def format_rollback(rollback: Mapping[str, Any]) -> str:
    """A record of `History.rollbacks` as a sentence."""
    if rollback["cause"] == DIVERGENCE:
        return (
            f"step {rollback['found']}: the loss has risen since step {rollback['sound']}; back to "
            f"step {rollback['to']}, {rollback['batches_skipped']} batches on, with "
            f"{rollback['rate']:g} times the learning rate"
        )
    skipped = rollback["batches_skipped"]
    return (
        f"step {rollback['found']}: too many steps in a row were not finite; back to step "
        f"{rollback['to']}" + (f", {skipped} batches on" if skipped else "")
    )


def _some(names: list[str]) -> str:
    more = len(names) - _NAMED_AT_ONCE
    return ", ".join(names[:_NAMED_AT_ONCE]) + (f" and {more} more" if more > 0 else "")
