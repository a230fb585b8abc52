"""The training loop: evaluate, save, draw, step, write, in this order and no other."""

import dataclasses
import itertools
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
from clu import parameter_overview
from jax.sharding import Mesh
from ml_collections import ConfigDict

from modessm_jax.text import percent
from modessm_jax.training.checkpoints import Checkpoints, claim
from modessm_jax.training.history import History
from modessm_jax.training.lock import only_run
from modessm_jax.training.mesh import data_mesh
from modessm_jax.training.preemption import PreemptedError
from modessm_jax.training.progress import Clock, Progress
from modessm_jax.training.settings import Settings
from modessm_jax.training.stages import Stage, plan_stages
from modessm_jax.training.state import TrainState, create_state
from modessm_jax.training.step import (
    Apply,
    Augment,
    Corrupt,
    StepReport,
    make_step,
    no_augmentation,
    place,
)
from modessm_jax.training.watchdog import Watchdog
from modessm_jax.training.writers import MetricWriter, write_json, write_text

_COUNTS = ("infeasible", "valid")
_NAMED_AT_ONCE = 8


class NonFiniteError(ValueError):
    """The loss or its gradient became NaN or infinite."""


def never(step: int) -> bool:
    """Lets a run go on to its end."""
    del step
    return False


def train(
    config: ConfigDict,
    workdir: Path,
    *,
    apply: Apply,
    params: Any,
    batches: Any,
    evaluate: Callable[[Any], Mapping[str, float]],
    trial_name: Callable[[int], str],
    dataset: dict[str, Any],
    augment: Augment = no_augmentation,
    corrupt: Corrupt | None = None,
    mesh: Mesh | None = None,
    stop: Callable[[int], bool] = never,
) -> dict[str, Any]:
    """Trains, or goes on with, the run in `workdir`.

    Run again after any interruption, it continues from the latest checkpoint and gives, bit for bit
    on one machine, what an uninterrupted run gives. A run that is complete is only summed up again.

    Left in `workdir`: config.json, dataset.json, parameters.txt, metrics.jsonl, tensorboard/,
    checkpoints/, best/, results.json, run.lock, and compiled/ (XLA's programs, so that a restart
    neither waits for compilation nor gets other programs than the run began with); and stacks.txt
    if it ever hung.

    Args:
      config: `training` (see `Settings`), `optimizer` (see `make_optimizer`), `objective`
        (`normalize_by` and, if there, `tie_modes`: see `make_step`) and the stages (see
        `read_stages`) are used; all of it is saved and compared.
      workdir: made if need be.
      apply: the model; see `make_step`.
      params: its initial parameters, float32. They must be the same whenever the run is restarted.
      batches: endless iterator of numpy `Batch` that Orbax can save (`get_state`, `set_state`).
      evaluate: from parameters to figures, `config.training.select_by` among them.
      trial_name: names a trial by its index, for the log.
      dataset: what identifies the data, as plain JSON values; saved and compared.
      augment: see `make_step`.
      corrupt: likewise.
      mesh: devices; all of them by default.
      stop: whether to save and end after so many updates; see `Preemption.reached`.

    Returns:
      What results.json holds.

    Raises:
      BusyError: another process trains in the directory.
      CheckpointError: the directory holds a run of another config or data set; or there is no room
        for a checkpoint.
      NonFiniteError: the loss or gradient is not finite; the log names the trials.
      PreemptedError: `stop` asked for it; everything is saved.
    """
    workdir = Path(workdir)
    workdir.mkdir(parents=True, exist_ok=True)
    plain = json.loads(config.to_json())
    settings = Settings(**{k: v for k, v in plain["training"].items() if k != "steps"})
    mesh = data_mesh() if mesh is None else mesh
    plans = plan_stages(plain, params)
    steps = [
        make_step(
            apply=apply,
            plan=plan,
            normalize_by=plain["objective"]["normalize_by"],
            seed=settings.seed,
            mesh=mesh,
            augment=augment,
            corrupt=corrupt,
            ema_decay=settings.ema_decay,
            accumulate=settings.accumulate,
            tie_modes=plain["objective"].get("tie_modes", False),
        )
        for plan in plans
    ]
    with ExitStack() as stack:
        stack.enter_context(only_run(workdir))
        checkpoints = Checkpoints(workdir, keep=settings.keep)
        claim(workdir, plain, dataset, resuming=bool(checkpoints.steps))
        state = create_state(params, plans[0].optimizer, mesh, ema=settings.ema_decay > 0.0)
        history = History(stages=[{"name": plans[0].stage.name, "begun": 0}])
        restored = checkpoints.restore(state, batches)
        if restored is not None:
            state, history = restored
        start = int(state.step)
        overview = parameter_overview.get_parameter_overview(params, include_stats=False)
        write_text(workdir / "parameters.txt", overview + "\n")
        writer = stack.enter_context(MetricWriter(workdir, resumed_from=start))
        watchdog = stack.enter_context(Watchdog(workdir / "stacks.txt"))
        run = _Run(
            settings,
            mesh,
            [plan.stage for plan in plans],
            steps,
            checkpoints,
            history,
            writer,
            evaluate,
            trial_name,
            stop,
            watchdog.alive,
            start,
        )
        run.until_done(state, batches)
    results = run.results(int(parameter_overview.count_parameters(params)))
    write_json(workdir / "results.json", results)
    return results


class _Run:
    """One process's part of a run."""

    def __init__(
        self,
        settings: Settings,
        mesh: Mesh,
        stages: list[Stage],
        steps: list[Any],
        checkpoints: Checkpoints,
        history: History,
        writer: MetricWriter,
        evaluate: Callable[[Any], Mapping[str, float]],
        trial_name: Callable[[int], str],
        stop: Callable[[int], bool],
        alive: Callable[[], None],
        start: int,
    ):
        self._settings = settings
        self._mesh = mesh
        self._stages = stages
        self._steps = steps
        self._checkpoints = checkpoints
        self._history = history
        self._writer = writer
        self._evaluate = evaluate
        self._trial_name = trial_name
        self._stop = stop
        self._alive = alive
        self._start = start
        self._clock = Clock(history.seconds)
        self._progress = Progress(self._last_step, self._clock, start=start)
        self._programs: dict[Any, Any] = {}
        # The step whose report has yet to be written. One step late, the device is already at
        # work on the next update while the host waits for the figures of this one.
        self._pending: tuple[int, StepReport] | None = None

    @property
    def _stage(self) -> Stage:
        return self._stages[len(self._history.stages) - 1]

    @property
    def _last_step(self) -> int:
        """Of the run, if no further stage ends early."""
        to_come = self._stages[len(self._history.stages) - 1 :]
        return self._history.stages[-1]["begun"] + sum(stage.steps for stage in to_come)

    def _stage_over(self, done: int) -> bool:
        stage, history = self._stage, self._history
        if done == history.stages[-1]["begun"] + stage.steps:
            return True
        impatient = stage.patience > 0 and history.last_evaluated == done
        return impatient and history.without_better(stage.select_by) >= stage.patience

    def until_done(self, state: TrainState, batches: Iterator[Any]) -> None:
        settings, history = self._settings, self._history
        last_stage = len(history.stages) == len(self._stages)
        if last_stage and history.last_evaluated == self._start and self._stage_over(self._start):
            self._progress.say(f"already complete: {self._start} steps")
            return
        if self._start:
            self._progress.say(f"resuming after step {self._start}")
        for done in itertools.count(self._start):
            self._alive()
            unsaved = done > self._start
            if self._stop(done):
                self._end_early(done, state, batches, unsaved=unsaved)
            # The order matters: what is saved is the state that was evaluated, with an iterator
            # that has not been drawn from since. A run that ended early may have saved before it
            # could evaluate.
            evaluation_due = self._stage_over(done) or done % settings.eval_every == 0
            if evaluation_due and history.last_evaluated < done:
                self._evaluate_now(done, state)
                self._alive()
                unsaved = True
            over = self._stage_over(done)
            last = over and len(history.stages) == len(self._stages)
            if over and not last:
                state = self._begin_stage(done, state)
            if unsaved and (over or done % settings.save_every == 0):
                self._save_now(done, state, batches)
            if last:
                break
            state = self._advance(done, state, batches)

    def _begin_stage(self, done: int, state: TrainState) -> TrainState:
        """Goes over to the next stage, with all of the state."""
        if self._history.window_steps:
            self._log(done)  # the next stage has other figures
        stage = self._stages[len(self._history.stages)]
        self._history.stages.append({"name": stage.name, "begun": done})
        self._progress.steps = self._last_step
        self._progress.say(f"step {done}: stage {stage.name} begins")
        return dataclasses.replace(state, begun=jnp.copy(state.step))

    def _end_early(self, done: int, state: TrainState, batches: Any, *, unsaved: bool) -> NoReturn:
        if unsaved:
            self._save_now(done, state, batches)
        raise PreemptedError(f"ended early after step {done}, and saved; run again to go on")

    def _advance(self, done: int, state: TrainState, batches: Iterator[Any]) -> TrainState:
        with self._clock.account("input"):
            batch = next(batches)
        with jax.transfer_guard("disallow"):
            with self._clock.account("step"):
                placed = place(batch, self._mesh, self._settings.accumulate)
            program = self._program(state, placed)
            with self._clock.account("step"):
                state, report = program(state, placed)
                self._write_pending()
                self._pending = (done + 1, report)
        return state

    def _program(self, state: TrainState, batch: Any) -> Any:
        """The compiled step for batches of this shape."""
        stage = len(self._history.stages) - 1
        key = stage, *(leaf.shape for leaf in jax.tree.leaves(batch))
        if key not in self._programs:
            # Tracing may place the model's constants on the device; once is no harm.
            with self._clock.account("compile"), jax.transfer_guard("allow"):
                self._programs[key] = self._steps[stage].lower(state, batch).compile()
            self._alive()
        return self._programs[key]

    def _write_pending(self) -> None:
        if self._pending is None:
            return
        step, report = self._pending
        self._pending = None
        report = jax.device_get(report)
        self._history.add(report.scalars)
        self._name_infeasible(step, report.infeasible)
        loss, norm = float(report.scalars["loss"]), float(report.scalars["gradient_norm"])
        finite = bool(np.isfinite(loss) and np.isfinite(norm))
        if step % self._settings.log_every == 0 or step == self._last_step or not finite:
            self._log(step)
        else:
            self._progress.tick(step, self._figures(loss))
        if not finite:
            trials = self._names(report.nonfinite)
            raise NonFiniteError(
                f"step {step}: the loss is {loss} and the gradient norm {norm}; not finite in "
                f"trials: {', '.join(trials) or 'none (the gradient alone)'}. The checkpoints are "
                "from before; lower optimizer.peak_lr or clip_norm, or look at these trials"
            )

    def _log(self, step: int) -> None:
        means = self._history.drain(counts=_COUNTS)
        self._writer.write(step, "train", means)
        rate = self._progress.rate(step)
        times = {"steps_per_second": rate, "input_stall": self._clock.input_stall}
        self._writer.chart(step, "time", times)
        self._progress.show(step, self._figures(means["loss"]), rate)

    def _figures(self, loss: float) -> str:
        parts = [f"loss {loss:.4f}"]
        if self._history.evaluations:
            parts.append(self._rates(self._history.evaluations[-1]))
        parts.append(f"waiting for data {percent(self._clock.input_stall)}")
        return "  ".join(parts)

    def _rates(self, metrics: Mapping[str, float | int]) -> str:
        """The error rate that is selected by, beside the usual one."""
        names = [
            name for name in dict.fromkeys(("per", self._settings.select_by)) if name in metrics
        ]
        return "  ".join(
            f"{name.upper().replace('_', ' ')} {percent(metrics[name])}" for name in names
        )

    def _evaluate_now(self, done: int, state: TrainState) -> None:
        with self._clock.account("step"):
            self._write_pending()
        with self._clock.account("evaluation"):
            measured = self._evaluate(state.evaluation_params)
        metrics = {name: float(value) for name, value in sorted(measured.items())}
        best = self._history.evaluated(done, metrics, self._settings.select_by)
        self._writer.write(done, "evaluation", metrics)
        mark = " (best so far)" if best else ""
        self._progress.say(f"step {done}: {self._rates(metrics)}{mark}")
        if best:
            with self._clock.account("checkpoint"):
                self._checkpoints.save_best(done, state, self._history)

    def _save_now(self, done: int, state: TrainState, batches: Any) -> None:
        with self._clock.account("step"):
            self._write_pending()
        self._history.seconds = dict(self._clock.seconds)
        with self._clock.account("checkpoint"):
            self._checkpoints.save(done, state, batches, self._history)

    def _names(self, trials: Any) -> list[str]:
        return [self._trial_name(int(trial)) for trial in sorted(set(trials.tolist()) - {-1})]

    def _name_infeasible(self, step: int, trials: Any) -> None:
        new = [name for name in self._names(trials) if name not in self._history.infeasible]
        if new:
            self._history.infeasible += new
            more = len(new) - _NAMED_AT_ONCE
            shown = ", ".join(new[:_NAMED_AT_ONCE]) + (f" and {more} more" if more > 0 else "")
            self._progress.say(
                f"step {step}: too few frames for the labels of {shown}; left out of the loss"
            )

    def results(self, parameters: int) -> dict[str, Any]:
        history = self._history
        return {
            "steps": history.last_evaluated,
            "parameters": parameters,
            "stages": self._stage_results(),
            "select_by": self._settings.select_by,
            "last": history.evaluations[-1],
            "best": history.best,
            "infeasible": sorted(history.infeasible),
            "seconds": {name: round(value, 3) for name, value in self._clock.seconds.items()},
            "input_stall": round(self._clock.input_stall, 5),
        }

    def _stage_results(self) -> list[dict[str, Any]]:
        """Each stage with the evaluation it ended with."""
        stages, evaluations = self._history.stages, self._history.evaluations
        ends = [stage["begun"] for stage in stages[1:]] + [self._history.last_evaluated]
        by_step = {record["step"]: record for record in evaluations}
        return [{**stage, "end": by_step[end]} for stage, end in zip(stages, ends, strict=True)]
