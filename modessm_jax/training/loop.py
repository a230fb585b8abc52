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
from clu import parameter_overview
from jax.sharding import Mesh
from ml_collections import ConfigDict

from modessm_jax.runs.checkpoints import Checkpoints
from modessm_jax.runs.history import History
from modessm_jax.runs.identity import check_identity, keeps_former_rules
from modessm_jax.runs.state import (
    TrainState,
    all_finite,
    create_state,
    evaluation_params,
    state_shapes,
)
from modessm_jax.runtime.device_memory import describe_memory, memory_limit
from modessm_jax.runtime.files import write_json, write_text
from modessm_jax.runtime.mesh import data_mesh
from modessm_jax.runtime.metric_writer import MetricWriter
from modessm_jax.runtime.preemption import PreemptedError
from modessm_jax.runtime.processes import broadcast_from_first, check_equal, first_process_folder
from modessm_jax.runtime.progress import Clock, Progress, format_accounts
from modessm_jax.runtime.watchdog import alive
from modessm_jax.training.guard import NONFINITE, Guard, Rollback
from modessm_jax.training.logbook import Logbook, format_rollback
from modessm_jax.training.rollback import Recovery, RollbackError, final_error
from modessm_jax.training.settings import GuardSettings, Settings
from modessm_jax.training.stages import Stage, plan_stages
from modessm_jax.training.step import (
    Apply,
    Augment,
    Corrupt,
    StepReport,
    StepSpec,
    make_step,
    no_augmentation,
    shard_batch,
)

BY_STAGE = ("steps", "select_by")  # of `config.training`, see `read_stages`


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
    init: Callable[[], Any],
    batches: Any,
    evaluate: Callable[[Any, Stage], Mapping[str, float]],
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

    A step that is not finite changes nothing, and the log names its trials. After more of these in
    a row than `guard.nonfinite_budget` the run goes back to its last checkpoint; with
    `guard.divergence` it also does when the loss keeps rising, see `Guard` and `Recovery`.

    Several processes can make one run, see `modessm_jax.runtime.processes`: all call this alike.

    What is left in `workdir` stands in docs/resume.md.

    Args:
      config: `training` (see `Settings`), `guard` (see `GuardSettings`), `optimizer` (see
        `make_optimizer`), `objective` (`normalize_by` and, if there, `tie_modes`: see `StepSpec`)
        and the stages (see `read_stages`) are used; all of it is saved and compared.
      workdir: a folder that is `in_use`.
      apply: see `StepSpec`, as for augment, corrupt and mesh.
      params: the shapes of its parameters, float32.
      init: computes the initial ones, the same whenever the run is restarted. It is called where
        the run begins, and what it returns is let go of: a resumed run has no use for it.
      batches: endless iterator of numpy `Batch` with a state of plain JSON values (`get_state`,
        `set_state`).
      evaluate: from parameters and the stage they are from to figures, among them what the stage
        is to `select_by`.
      trial_name: names a trial by its index, for the log.
      dataset: what identifies the data, as plain JSON values; saved and compared.
      stop: whether to save and end after so many updates; see `Preemption.reached`.

    Returns:
      What results.json holds.

    Raises:
      CheckpointError: the directory holds a run of another config or data set; or there is no room
        for a checkpoint; or none of the checkpoints in it is sound.
      DivergedError: the loss rose again after the run had gone back `guard.tries` times.
      NonFiniteError: steps stay not finite, although the run has gone back `guard.tries` times; the
        message says what is wrong where.
      PreemptedError: `stop` asked for it; everything is saved.
    """
    plain = json.loads(config.to_json())
    settings = Settings(**{k: v for k, v in plain["training"].items() if k not in BY_STAGE})
    guard = GuardSettings(**plain["guard"])
    mesh = data_mesh() if mesh is None else mesh
    plans = plan_stages(plain, params)
    spec = StepSpec(
        apply,
        normalize_by=plain["objective"]["normalize_by"],
        seed=settings.seed,
        mesh=mesh,
        augment=augment,
        corrupt=corrupt,
        accumulate=settings.accumulate,
        tie_modes=plain["objective"].get("tie_modes", False),
        ema_decay=settings.ema_decay,
        former_rules=keeps_former_rules(workdir),
    )
    steps = [make_step(spec, plan) for plan in plans]

    made: Any = {"optimizer": plans[0].optimizer, "mesh": mesh, "ema": settings.ema_decay > 0.0}
    shapes = state_shapes(params, **made)

    def begin() -> TrainState:
        return create_state(init(), **made)

    with ExitStack() as stack:
        own = stack.enter_context(first_process_folder(workdir))
        checkpoints = Checkpoints(workdir, keep=settings.keep)
        check_equal("config or data set", [plain, dataset])
        resuming = checkpoints.begun
        broadcast_from_first(lambda: check_identity(workdir, plain, dataset, resuming=resuming))
        clock = Clock(own / "seconds.json")
        stack.callback(clock.save, now=True)
        stages = [plan.stage for plan in plans]
        recovery = Recovery(
            begin, shapes, stages[0].name, batches, checkpoints, clock, settings, guard
        )
        state, history = recovery.resume()
        overview = parameter_overview.get_parameter_overview(params, include_stats=False)
        write_text(own / "parameters.txt", overview + "\n")
        run = _Run(settings, mesh, stages, steps, checkpoints, recovery, clock, evaluate, stop)
        while True:
            start = int(state.step)
            with MetricWriter(own, lines=history.lines) as writer:
                progress = Progress(start, clock, start=start)
                logbook = Logbook(history, writer, progress, clock, trial_name, settings, stages)
                logbook.rollbacks(start)
                try:
                    run.until_done(state, batches, history, logbook, Guard(guard, history))
                    break
                except RollbackError as found:
                    trouble = found
            if recovery.out_of_retries(trouble.rollback.cause, history):
                plan = plans[len(history.stages) - 1]
                raise final_error(trouble, guard.tries, trial_name, spec, plan)
            rollback = trouble.rollback
            del trouble, state  # makes room on the device
            state, history = recovery.go_back(rollback, history)
            print(format_rollback(history.rollbacks[-1]), flush=True)
        results = run.results(int(parameter_overview.count_parameters(params)))
        write_json(own / "results.json", results)
    print(format_accounts(results["seconds"]), flush=True)
    return results


@dataclasses.dataclass
class _Run:
    """One process's part of a run, until it ends or has to go back."""

    settings: Settings
    mesh: Mesh
    stages: list[Stage]
    steps: list[Any]
    checkpoints: Checkpoints
    recovery: Recovery
    clock: Clock
    evaluate: Callable[[Any, Stage], Mapping[str, float]]
    stop: Callable[[int], bool]
    programs: dict[Any, Any] = dataclasses.field(default_factory=dict)  # by stage and shapes

    def until_done(
        self,
        state: TrainState,
        batches: Iterator[Any],
        history: History,
        logbook: Logbook,
        guard: Guard,
    ) -> None:
        """Goes on from `state`.

        Raises:
          PreemptedError: it was asked to end, and has saved.
          RollbackError: it has to go back.
        """
        self._history, self._logbook, self._guard = history, logbook, guard
        # The step whose report has yet to be taken in, with its batch. One step late, the device is
        # already at work on the next update while the host waits for the figures of this one.
        self._pending: tuple[int, StepReport, Any] | None = None
        start = int(state.step)
        logbook.progress.steps = self._last_step
        last_stage = len(history.stages) == len(self.stages)
        if last_stage and history.last_evaluated == start and self._stage_over(start):
            logbook.progress.print(f"already complete: {start} steps")
            return
        if start:
            logbook.progress.print(f"resuming after step {start}")
        for done in itertools.count(start):
            alive()
            self.clock.save()
            unsaved = done > start
            if self.stop(done):
                self._end_early(done, state, batches, unsaved=unsaved)
            # The order matters: what is saved is the state that was evaluated, with an iterator
            # that has not been drawn from since. A run that ended early may have saved before it
            # could evaluate.
            evaluation_due = self._stage_over(done) or done % self.settings.eval_every == 0
            if evaluation_due and history.last_evaluated < done:
                self._evaluate_now(done, state)
                alive()
                unsaved = True
            over = self._stage_over(done)
            last = over and len(history.stages) == len(self.stages)
            if over and not last:
                state = self._begin_stage(done, state)
            if unsaved and (over or done % self.settings.save_every == 0):
                self._save_now(done, state, batches)
            if last:
                break
            state = self._advance(done, state, batches)

    @property
    def _stage(self) -> Stage:
        return self.stages[len(self._history.stages) - 1]

    @property
    def _last_step(self) -> int:
        """Of the run, if no further stage ends early."""
        to_come = self.stages[len(self._history.stages) - 1 :]
        return self._history.stages[-1]["begun"] + sum(stage.steps for stage in to_come)

    def _stage_over(self, done: int) -> bool:
        stage, history = self._stage, self._history
        if done == history.stages[-1]["begun"] + stage.steps:
            return True
        impatient = stage.patience > 0 and history.last_evaluated == done
        return impatient and history.without_better(stage.select_by) >= stage.patience

    def _begin_stage(self, done: int, state: TrainState) -> TrainState:
        """Goes over to the next stage, with all of the state."""
        self._logbook.line(done)  # the next stage has other figures
        self._guard.begin_stage()
        stage = self.stages[len(self._history.stages)]
        self._history.stages.append({"name": stage.name, "begun": done})
        self._logbook.progress.steps = self._last_step
        self._logbook.progress.print(f"step {done}: stage {stage.name} begins")
        return dataclasses.replace(state, begun=jnp.copy(state.step))

    def _end_early(self, done: int, state: TrainState, batches: Any, *, unsaved: bool) -> NoReturn:
        if unsaved:
            self._save_now(done, state, batches)
        raise PreemptedError(f"ended early after step {done}, and saved; run again to go on")

    def _advance(self, done: int, state: TrainState, batches: Iterator[Any]) -> TrainState:
        with self.clock.account("input"):
            batch = next(batches)
        with jax.transfer_guard("disallow"):
            with self.clock.account("step"):
                placed = shard_batch(batch, self.mesh, self.settings.accumulate)
            program = self._program(state, placed, batches)
            with self.clock.account("step"):
                state, report = program(state, placed)
                self._take_pending(state)
                self._pending = (done + 1, report, batch)
        return state

    def _program(self, state: TrainState, batch: Any, batches: Any) -> Any:
        """The compiled step for batches of this shape."""
        stage, key = len(self._history.stages) - 1, self._key(batch)
        if key not in self.programs:
            if not self.programs:
                self._try_later_stages(stage, state, batch)
            limit = memory_limit()
            if limit is not None and not any(known[0] == stage for known in self.programs):
                # Before hours are spent on smaller ones: it may not fit.
                self._compile(state, batches.largest_like(batch), limit)
            if key not in self.programs:
                self._compile(state, batch, limit)
        return self.programs[key]

    def _compile(self, state: TrainState, batch: Any, limit: int | None) -> None:
        # Tracing may place the model's constants on the device; once is no harm.
        with self.clock.account("compile"), jax.transfer_guard("allow"):
            step = self.steps[len(self._history.stages) - 1]
            program = step.lower(state, batch).compile()
        self.programs[self._key(batch)] = program
        if limit is not None:
            trials, bins, _ = batch.features.values.shape
            memory = describe_memory(program, limit)
            self._logbook.progress.print(f"a step of {trials} trials of {bins} bins: {memory}")
        alive()

    def _key(self, batch: Any) -> Any:
        stage = len(self._history.stages) - 1
        return stage, *(leaf.shape for leaf in jax.tree.leaves(batch))

    def _try_later_stages(self, stage: int, state: TrainState, batch: Any) -> None:
        """Traces the later stages now: what the model lacks for them should not end it in days."""
        for later, step in zip(self.stages[stage + 1 :], self.steps[stage + 1 :], strict=True):
            try:
                jax.eval_shape(step, state, batch)
            except ValueError as error:
                raise ValueError(f"stage {later.name}: {error}") from error

    def _take_pending(self, state: TrainState) -> None:
        if self._pending is None:
            return
        step, report, batch = self._pending
        self._pending = None
        report = jax.device_get(report)
        self._logbook.step(step, report)
        rollback = self._guard.judge(step, report.scalars)
        if rollback is not None:
            raise RollbackError(rollback, state, batch)

    def _evaluate_now(self, done: int, state: TrainState) -> None:
        with self.clock.account("step"):
            self._take_pending(state)
            self._assert_finite(done, state)
        with self.clock.account("evaluation"):
            measured = self.evaluate(evaluation_params(state), self._stage)
        metrics = {name: float(value) for name, value in sorted(measured.items())}
        best = self._history.evaluated(done, metrics, self._stage.select_by)
        self._logbook.evaluation(done, metrics, best=best)
        if best:
            with self.clock.account("checkpoint"):
                self.checkpoints.save_best(done, state, self._history)

    def _save_now(self, done: int, state: TrainState, batches: Any) -> None:
        with self.clock.account("step"):
            self._take_pending(state)
            self._assert_finite(done, state)
        self._history.lines = self._logbook.lines
        self._history.seconds = self.clock.noted()
        with self.clock.account("checkpoint"):
            self.recovery.save(done, state, batches, self._history)

    def _assert_finite(self, done: int, state: TrainState) -> None:
        """Skipped steps keep the state finite; this is for what only a checkpoint would show."""
        if not all_finite((state.params, state.ema, state.opt_state)):
            raise RollbackError(Rollback(NONFINITE, done, done), state, None)

    def results(self, parameters: int) -> dict[str, Any]:
        history = self._history
        return {
            "steps": history.last_evaluated,
            "parameters": parameters,
            "stages": self._stage_results(),
            "select_by": self._stage.select_by,
            "last": history.evaluations[-1],
            "best": history.best,
            "infeasible": sorted(history.infeasible),
            "skipped": history.skipped,
            "rollbacks": history.rollbacks,
            "seconds": {name: round(value, 3) for name, value in self.clock.seconds.items()},
            "cpu_seconds": round(self.clock.cpu, 3),
            "input_stall": round(self.clock.input_stall, 5),
        }

    def _stage_results(self) -> list[dict[str, Any]]:
        """Each stage with the evaluation it ended with."""
        stages, evaluations = self._history.stages, self._history.evaluations
        ends = [stage["begun"] for stage in stages[1:]] + [self._history.last_evaluated]
        by_step = {record["step"]: record for record in evaluations}
        return [{**stage, "end": by_step[end]} for stage, end in zip(stages, ends, strict=True)]
