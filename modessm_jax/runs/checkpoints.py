"""Saves and restores the checkpoints of a run, and its best model.

<workdir>/checkpoints/<step>/{weights,ema,optimizer,history,manifest.json}   the last `keep`
<workdir>/best/<step>/{weights,ema,history,manifest.json}                    the best model of each
"""

import contextlib
import json
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from orbax.checkpoint import v1 as ocp

from modessm_jax.runs import checkpoint_files
from modessm_jax.runs.checkpoint_files import (
    CheckpointError,
    DamagedError,
    contents_of,
    damaged_in,
    load,
    saved_structure,
    steps_in,
)
from modessm_jax.runs.history import History
from modessm_jax.runs.state import TrainState, bit_sums, shapes_of, with_rate
from modessm_jax.runtime.mesh import data_mesh, replicated
from modessm_jax.runtime.processes import broadcast_from_first, is_first


class Weights(NamedTuple):
    """The part of a checkpoint that evaluation and decoding need."""

    step: int
    params: Any
    ema: Any  # None where the run keeps no average
    history: History


class Checkpoints:
    """The checkpoints of one run directory.

    Saving returns once everything is on disk. A checkpoint appears under its step's name only when
    it is complete, with its manifest, so a process killed while saving leaves the one before as the
    latest. Checkpoints that have been damaged since are set aside as `<step>.damaged`.

    Where several processes make the run, all of them call the same methods, on a disk they share.
    The first one removes, renames and seals; Orbax shares out reading and writing arrays.
    """

    def __init__(self, workdir: Path, *, keep: int):
        if keep < 1:
            raise ValueError(f"training.keep is {keep}; at least one checkpoint must be kept")
        workdir = Path(workdir).absolute()
        self._best = workdir / "best"
        self._directory = workdir / "checkpoints"
        self._keep = keep
        self._facts: dict[int, dict[str, Any]] = {}  # by step, from the manifest
        broadcast_from_first(self._prepare)

    @property
    def begun(self) -> bool:
        """Whether a checkpoint was ever saved, even if it has been set aside since."""
        return broadcast_from_first(
            lambda: bool(steps_in(self._directory) or damaged_in(self._directory))
        )

    @property
    def scheduled(self) -> list[int]:
        """The steps of the checkpoints that were saved as scheduled, in order."""
        return broadcast_from_first(
            lambda: [step for step in steps_in(self._directory) if self._is_scheduled(step)]
        )

    def save(
        self,
        step: int,
        state: TrainState,
        batches: Any,
        history: History,
        *,
        scheduled: bool = True,
        needed: Collection = (),
    ) -> None:
        """Saves the state after `step` updates, with the iterator that yields the next batch.

        Then removes all but the last `keep` checkpoints, and best models of none of those left.

        Args:
          scheduled: whether a run that is never interrupted would save here too; recorded.
          needed: steps of older checkpoints to keep.

        Raises:
          CheckpointError: the disk is full, or cannot be written for another reason.
        """
        self._save(step, state, history, batches.get_state(), scheduled=scheduled)
        broadcast_from_first(lambda: self._remove_old(step, set(needed)))

    def drop_after(self, step: int) -> None:
        """Removes the checkpoints of later steps, the last one first, when the run rolls back."""

        def remove() -> None:
            for later in reversed(steps_in(self._directory)):
                if later > step:
                    checkpoint_files.remove(self._directory / str(later))

        broadcast_from_first(remove)

    def save_best(self, step: int, state: TrainState, history: History) -> None:
        """Saves the model as the best so far.

        Earlier ones stay as long as the checkpoints whose best model they were, in case the run
        rolls back to one of these.

        Raises:
          CheckpointError: the disk is full, or cannot be written for another reason.
        """
        parts = contents_of(state, history)
        del parts["optimizer"]
        self._write(self._best, parts, {"step": step, "best": history.best})

    def try_out(self, begin: Callable[[], TrainState]) -> TrainState:
        """Saves the state before the first step, removes it, and returns what was read back.

        So a disk, or a path, that loses what is saved is known before a step is made.

        Raises:
          CheckpointError: it cannot be saved, or is not what is read.
        """
        state, folder = begin(), self._directory / "0.partial"
        shapes = shapes_of(state, state.step.sharding)
        saved = jax.device_get(bit_sums(state))
        with self._saving(folder):
            ocp.save_checkpointables(str(folder), contents_of(state, History()))
        del state  # or there would be two on the device
        try:
            read, _, _ = self._read(folder, shapes)
            if jax.device_get(bit_sums(read)) != saved:
                raise CheckpointError("the numbers are others")
        except CheckpointError as error:
            raise CheckpointError(
                f"{self._directory}: what is saved there is lost: a checkpoint of the first state, "
                f"written and read back, is not the same ({error}). Choose another workdir: "
                "another disk, or a path without the characters [, ] and \\"
            ) from error
        finally:
            broadcast_from_first(lambda: checkpoint_files.remove(folder))
        return read

    def restore(
        self, state: TrainState, batches: Any, *, until: int | None = None
    ) -> tuple[TrainState, History] | None:
        """Loads the latest sound checkpoint, and sets `batches` to its place in the data.

        Each damaged one is set aside, and a line is printed that says what is wrong with it. A
        checkpoint whose best model is sound is preferred to a later one whose best model is lost;
        if all are lost, the best model is chosen anew from the evaluations still to come.

        Args:
          state: of this config, or its `state_shapes`, for shapes and sharding.
          batches: the run's iterator, not yet drawn from.
          until: for a rollback: uses only checkpoints up to this step, scheduled ones first.

        Returns:
          The state and the history; None where there is no checkpoint.

        Raises:
          CheckpointError: the checkpoint does not fit the state; or there were checkpoints, but
            none (up to `until`) is sound; or the disk cannot be read.
        """
        chosen = broadcast_from_first(lambda: self._choose(until))
        if chosen is None:
            return None
        step, without_best, lost = chosen
        self._replace_best(without_best, set(lost), state)
        restored, history, position = self._read(self._directory / str(step), state)
        batches.set_state(position)
        return restored, history

    def _read(self, folder: Path, state: TrainState) -> tuple[TrainState, History, Any]:
        """Loads a checkpoint: the state, the history, and the place in the data."""
        loaded = load(folder, contents_of(state, History()))
        restored = TrainState(
            step=loaded["history"]["step"],
            begun=loaded["history"]["begun"],
            params=loaded["weights"],
            ema=loaded.get("ema"),
            opt_state=loaded["optimizer"],
            rate=state.rate,
        )
        history = History.from_json(loaded["history"]["json"])
        position = json.loads(loaded["history"]["batches"])
        return with_rate(restored, history.rate), history, position

    def _prepare(self) -> None:
        for directory in (self._best, self._directory):
            directory.mkdir(parents=True, exist_ok=True)
            checkpoint_files.tidy(directory)

    def _remove_old(self, step: int, needed: set[int]) -> None:
        # A run that has rolled back has checkpoints of later steps; it will replace them.
        kept = [other for other in steps_in(self._directory) if other <= step]
        for old in set(kept[: -self._keep]) - needed:
            checkpoint_files.remove(self._directory / str(old))
        known = [self._facts[step] for step in steps_in(self._directory) if step in self._facts]
        for old in set(steps_in(self._best)) - {_best_step(facts["best"]) for facts in known}:
            checkpoint_files.remove(self._best / str(old))

    def _is_scheduled(self, step: int) -> bool:
        return step in self._facts and self._facts[step]["scheduled"]

    def _choose(self, until: int | None) -> tuple[int, list[int], list[int]] | None:
        """The step to restore, the steps up to it whose best model is lost, and these models."""
        steps = [s for s in steps_in(self._directory) if until is None or s <= until]
        found = {step: _sound(self._directory / str(step)) for step in steps}
        facts = {step: facts for step, facts in found.items() if facts is not None}
        if not facts:
            if until is None and not damaged_in(self._directory):
                return None
            raise CheckpointError(self._nothing_sound(until))
        self._facts.update(facts)
        best = {step: _best_step(recorded["best"]) for step, recorded in facts.items()}
        named = {found for found in best.values() if found is not None}
        lost = {step for step in named if _sound(self._best / str(step)) is None}
        step = max(
            facts, key=lambda s: (until is None or self._is_scheduled(s), best[s] not in lost, s)
        )
        without_best = [other for other in facts if other <= step and best[other] in lost]
        return step, without_best, sorted(lost)

    def _nothing_sound(self, until: int | None) -> str:
        aside = ", ".join(folder.name for folder in damaged_in(self._directory))
        models = []
        for step in steps_in(self._best):
            with contextlib.suppress(DamagedError):
                _verified(self._best / str(step))
                models.append(str(step))
        return (
            f"{self._directory}: no sound checkpoint is left"
            f"{'' if until is None else f' to go back to, of step {until} or earlier'}; set aside "
            f"as damaged: {aside or 'none'}. Sound models in {self._best}: "
            f"{', '.join(models) or 'none'}. To go on, put a sound copy of a checkpoint there, "
            "named for its step. To begin anew, choose a new workdir, or move this one away"
        )

    def _replace_best(self, steps: list[int], lost: set[int], state: TrainState) -> None:
        """Gives these checkpoints another best model, on disk too: a complete run saves no more.

        It is the checkpoint's own model where that has been evaluated, otherwise the next one that
        will be. A model that an earlier one of these checkpoints has brought back is left as it is.
        """
        for step in steps:
            restored, history, position = self._read(self._directory / str(step), state)
            former, history.best = _best_step(history.best), None
            if former not in lost:
                continue
            instead = "the next one evaluated"
            if history.last_evaluated == step:
                history.best = history.evaluations[-1]
                instead = "its own"
                self.save_best(step, restored, history)
                lost.discard(step)
            scheduled = broadcast_from_first(lambda step=step: self._is_scheduled(step))
            self._save(step, restored, history, position, scheduled=scheduled)
            print(
                f"the best model of checkpoint {step}, which was that of step {former}, is lost; "
                f"{instead} takes its place",
                flush=True,
            )

    def _save(
        self, step: int, state: TrainState, history: History, position: Any, *, scheduled: bool
    ) -> None:
        facts = {"step": step, "best": history.best, "scheduled": scheduled}
        self._write(self._directory, contents_of(state, history, position), facts)
        self._facts[step] = facts

    def _write(self, directory: Path, parts: dict[str, Any], facts: dict[str, Any]) -> None:
        step = facts["step"]
        partial = directory / f"{step}.partial"

        def finish() -> None:
            checkpoint_files.seal(partial, facts)
            checkpoint_files.publish(partial)

        with self._saving(partial):
            ocp.save_checkpointables(str(partial), parts)
            broadcast_from_first(finish)

    @contextlib.contextmanager
    def _saving(self, partial: Path) -> Iterator[None]:
        """Tidies up after a failure, and says what is left."""
        try:
            yield
        except (OSError, ValueError) as error:
            if is_first():
                checkpoint_files.tidy(partial.parent)
            left = ", ".join(map(str, steps_in(self._directory))) or "none"
            raise CheckpointError(
                f"{partial.with_suffix('')} could not be saved ({error}). The checkpoints saved "
                f"before are unchanged (steps: {left}); make room on the disk and run again"
            ) from error


def load_weights(directory: Path, like: Any, step: int | None = None) -> Weights:
    """Loads a model, to the first device; in a run of several processes, to all devices.

    Args:
      directory: `<workdir>/best` or `<workdir>/checkpoints`.
      like: the model's parameters, or anything with their structure, shapes and types; None takes
        them as they were saved.
      step: of the checkpoint; the latest by default.

    Raises:
      CheckpointError: there is no such checkpoint, or it is damaged, or of another model.
    """
    directory = Path(directory).absolute()
    steps = steps_in(directory)
    if not steps:
        raise CheckpointError(f"{directory}: no checkpoint here; train first, or give the workdir")
    step = steps[-1] if step is None else step
    if step not in steps:
        raise CheckpointError(f"{directory}: no checkpoint of step {step}; there are {steps}")
    folder = directory / str(step)
    try:
        _verified(folder)
    except DamagedError as error:
        raise CheckpointError(
            f"{folder} is damaged: {error}. Run the training again, which sets it aside and goes "
            f"on from a sound one, or choose another step of {steps}"
        ) from error
    loaded = _load_parts(folder, {} if like is None else {"weights": like, "ema": like})
    history = History.from_json(loaded["history"]["json"])
    return Weights(step, loaded["weights"], loaded.get("ema"), history)


def read_back(folder: Path) -> None:
    """Loads all that a checkpoint holds, and lets go of it again.

    Checksums say that the files are those that were written; this, that they can be read.

    Raises:
      CheckpointError: a part cannot be loaded.
    """
    _load_parts(Path(folder).absolute(), {}, ("weights", "ema", "optimizer"))


def _load_parts(
    folder: Path, like: Mapping[str, Any], names: Collection[str] = ("weights", "ema")
) -> dict[str, Any]:
    """The parts of a checkpoint that it has, with its history: as they were saved, or `like`."""
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    if jax.process_count() > 1:
        device = replicated(data_mesh())
    there = [name for name in names if (folder / name).is_dir()]
    shapes = like or saved_structure(folder)
    parts = {name: shapes_of(shapes[name], device) for name in there}
    count = jax.ShapeDtypeStruct((), jnp.int32, sharding=device)
    state = TrainState(count, count, parts.get("weights"), None, opt_state=(), rate=1.0)
    return load(folder, {"history": contents_of(state, History())["history"], **parts})


def _sound(folder: Path) -> dict[str, Any] | None:
    """The facts in the manifest of a checkpoint; None, and it is set aside, if it is damaged."""
    try:
        return _verified(folder)
    except DamagedError as error:
        message = f"{folder} is damaged: {error}"
    if folder.exists():
        message += f"; set aside as {checkpoint_files.set_aside(folder).name}"
    print(message, flush=True)
    return None


def _verified(folder: Path) -> dict[str, Any]:
    """The facts in the manifest of a sound checkpoint.

    Raises:
      DamagedError: it is damaged.
      CheckpointError: the disk cannot be read.
    """
    try:
        return checkpoint_files.verify(folder)
    except OSError as error:
        raise CheckpointError(
            f"{folder} cannot be read ({error}). The files may be intact, so nothing has been "
            "changed. Run again when the disk can be read; if it never can, move that folder away"
        ) from error


def _best_step(best: dict[str, Any] | None) -> int | None:
    return None if best is None else int(best["step"])
