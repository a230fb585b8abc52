"""Resuming and rolling back: the checkpoint a run goes on from, and the error that ends it."""

import copy
import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

from modessm_jax.runs.checkpoints import Checkpoints
from modessm_jax.runs.history import History
from modessm_jax.runs.state import TrainState, with_rate
from modessm_jax.runtime.progress import Clock
from modessm_jax.training.diagnosis import diagnose, diagnose_state
from modessm_jax.training.guard import DIVERGENCE, Rollback
from modessm_jax.training.settings import GuardSettings, Settings
from modessm_jax.training.stages import StagePlan
from modessm_jax.training.step import StepSpec


class NonFiniteError(ValueError):
    """The loss or its gradient stays NaN or infinite, whenever the run goes back."""


class DivergedError(ValueError):
    """The loss rises and stays high, whenever the run goes back."""


class RollbackError(Exception):
    """Raised in the loop when the run has to go back to a checkpoint."""

    def __init__(self, rollback: Rollback, state: TrainState, batch: Any):
        super().__init__(rollback)
        self.rollback = rollback
        self.state = state  # the latest
        self.batch = batch  # of the step that showed the trouble, in host memory


class Resumed(NamedTuple):
    """What a run goes on with; its iterator has been set to the same step."""

    state: TrainState
    history: History


@dataclasses.dataclass
class Recovery:
    """Restores a run.

    A run goes back to scheduled checkpoints, those that it would have made had it never been
    interrupted: after every `save_every` steps, and where a stage begins. So one that was killed,
    or stopped and saved in between, goes back to the same as one that was not (with the same
    `save_every`). Each checkpoint records whether it is one, because `save_every` may change. Only
    where those are damaged are others used; and the beginning only where none was due before.
    """

    begin: Callable[[], TrainState]  # makes the state before the first step
    shapes: Any  # of a state
    first_stage: str  # its name
    batches: Any  # the run's iterator, not yet drawn from
    checkpoints: Checkpoints
    clock: Clock
    settings: Settings
    guard: GuardSettings

    def __post_init__(self) -> None:
        self._first_batch = copy.deepcopy(self.batches.get_state())

    def resume(self) -> Resumed:
        """The latest checkpoint, or the beginning, once that could be saved and read back."""
        found = self.checkpoints.restore(self.shapes, self.batches)
        if found is None:
            found = self.checkpoints.try_out(self.begin), self._first_history()
        return self._at(found)

    def out_of_retries(self, cause: str, history: History) -> bool:
        """Whether the run has gone back for this cause as often as it may."""
        return sum(past["cause"] == cause for past in history.rollbacks) >= self.guard.tries

    def go_back(self, rollback: Rollback, former: History) -> Resumed:
        """The last checkpoint from before the trouble; the later ones are removed.

        After a divergence the learning rate is lowered, and the batches drawn since that checkpoint
        are skipped: Chowdhery et al. 2022, "PaLM", got over every spike of the loss that way.
        After steps that are not finite the batches are drawn once more, for a fault of the machine
        passes. If the run gets no further they are skipped as well. The result replaces the
        checkpoint, so that this is done once, and the history records it.
        """
        if former.first_saved is None or former.first_saved > rollback.sound:
            self.batches.set_state(copy.deepcopy(self._first_batch))
            found = self.begin(), self._first_history()
        else:
            found = self.checkpoints.restore(self.shapes, self.batches, until=rollback.sound)
            assert found is not None
        state, history = self._at(found)
        to, skipped = int(state.step), 0
        # Only now that there is a place to go on from.
        self.checkpoints.drop_after(to)
        diverged = rollback.cause == DIVERGENCE
        history.rate = former.rate * (self.guard.lr_factor if diverged else 1.0)
        if diverged or any(rollback.found <= past["found"] for past in former.rollbacks[-1:]):
            # Batches that were skipped between the checkpoint and now have been drawn as well.
            unknown = former.rollbacks[len(history.rollbacks) :]
            skipped = rollback.found - to + sum(past["batches_skipped"] for past in unknown)
        with self.clock.account("input"):
            for _ in range(skipped):
                next(self.batches)
        record = {
            **rollback._asdict(),
            "to": to,
            "batches_skipped": skipped,
            "rate": history.rate,
        }
        # Sorted, as it comes back from a checkpoint: the log of a resumed run has the same bytes.
        history.rollbacks = [*former.rollbacks, dict(sorted(record.items()))]
        history.skipped_in_a_row = 0
        history.seconds = self.clock.noted()
        state = with_rate(state, history.rate)
        self._save(to, state, self.batches, history, scheduled=True)
        return Resumed(state, history)

    def save(self, done: int, state: TrainState, batches: Any, history: History) -> None:
        """Saves the run after `done` updates; see `Checkpoints.save`."""
        scheduled = done % self.settings.save_every == 0 or done == history.stages[-1]["begun"]
        self._save(done, state, batches, history, scheduled=scheduled)

    def _save(
        self, done: int, state: TrainState, batches: Any, history: History, *, scheduled: bool
    ) -> None:
        if scheduled and history.first_saved is None:
            history.first_saved = done
        needed = self._needed(done, history)
        self.checkpoints.save(done, state, batches, history, scheduled=scheduled, needed=needed)

    def _needed(self, done: int, history: History) -> set[int]:
        """Steps whose checkpoints the run may have to go back to."""
        # No trouble found from here on can have begun before the guard's earliest step, however
        # many of the steps since were skipped.
        sound = history.trend.get("steps", [done + 1])[0] - 1
        steps = self.checkpoints.scheduled
        latest = max((step for step in steps if step <= sound), default=0)
        return {step for step in steps if step >= latest}

    def _first_history(self) -> History:
        return History(stages=[{"name": self.first_stage, "begun": 0}])

    def _at(self, found: tuple[TrainState, History]) -> Resumed:
        resumed = Resumed(*found)
        self.clock.go_back(resumed.history.seconds)
        return resumed


def final_error(
    trouble: RollbackError,
    tries: int,
    trial_name: Callable[[int], str],
    spec: StepSpec,
    plan: StagePlan,
) -> ValueError:
    """The error that ends a run which has gone back `tries` times, with a diagnosis."""
    cause, found, sound = trouble.rollback
    if cause == DIVERGENCE:
        return DivergedError(
            f"step {found}: the loss has risen since step {sound}, although the run went back "
            f"{tries} times (guard.tries) to a lower learning rate and other data. The checkpoints "
            "are from before; lower optimizer.peak_lr or clip_norm in a new run"
        )
    state, batch = trouble.state, trouble.batch
    if batch is None:
        diagnosis = diagnose_state(state)
    else:
        diagnosis = diagnose(state.params, found - 1, batch, trial_name, spec, plan)
    return NonFiniteError(
        f"step {found}: steps stay not finite, although the run went back {tries} times "
        f"(guard.tries).\n{diagnosis}\nThe checkpoints are finite and from before; repair these "
        "trials, or lower optimizer.peak_lr or clip_norm in a new run"
    )
