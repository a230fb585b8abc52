"""Saving and finding again everything a run needs to go on, and the best of its models.

<workdir>/checkpoints/<step>/{weights,ema,optimizer,history,manifest.json}   the last `keep`
<workdir>/best/<step>/{weights,ema,history,manifest.json}                    the best of these
"""

import contextlib
import json
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from orbax.checkpoint import v1 as ocp

from modessm_jax.runs import checkpoint_files
from modessm_jax.runs.checkpoint_files import (
    CheckpointError,
    abstract,
    contents_of,
    history_of,
    load,
    steps_in,
)
from modessm_jax.runs.history import History
from modessm_jax.runs.state import TrainState, with_rate
from modessm_jax.runtime.mesh import data_mesh, replicated
from modessm_jax.runtime.processes import broadcast_from_first


class Weights(NamedTuple):
    """What evaluation and decoding need of a checkpoint."""

    step: int
    params: Any
    ema: Any  # None where the run keeps no average
    history: History


class Checkpoints:
    """The checkpoints of one working directory.

    Saving returns once everything is on disk. A checkpoint appears under its step's name only when
    it is complete, with its manifest, so a process killed while saving leaves the one before as the
    latest. Checkpoints that have been damaged since are set aside as `<step>.damaged`.

    Where several processes make the run, all of them call the same methods, on a disk they share.
    The first removes, renames and seals; Orbax divides the reading and writing of arrays.
    """

    def __init__(self, workdir: Path, *, keep: int):
        if keep < 1:
            raise ValueError(f"training.keep is {keep}; at least one checkpoint must be kept")
        workdir = Path(workdir).absolute()
        self._best = workdir / "best"
        self._directory = workdir / "checkpoints"
        self._keep = keep
        self._facts: dict[int, dict[str, Any]] = {}  # of each checkpoint, what its manifest says
        broadcast_from_first(self._prepare)

    @property
    def begun(self) -> bool:
        """Whether a checkpoint was ever saved, even if it has been set aside since."""
        return broadcast_from_first(
            lambda: bool(steps_in(self._directory) or checkpoint_files.damaged_in(self._directory))
        )

    @property
    def steps(self) -> list[int]:
        """Of the checkpoints there are, sound or not; the latest last."""
        return broadcast_from_first(lambda: steps_in(self._directory))

    @property
    def scheduled(self) -> list[int]:
        """Of these, the steps of those saved as scheduled."""
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

        Only then do older checkpoints go, and models that no checkpoint left knows as its best.
        Those in `needed` stay.

        Args:
          scheduled: whether a run that is never interrupted saves here too; kept with it.

        Raises:
          CheckpointError: the disk is full, or does not take it for another reason.
        """
        self._save(step, state, history, batches.get_state(), scheduled=scheduled)
        broadcast_from_first(lambda: self._remove_old(step, set(needed)))

    def drop_after(self, step: int) -> None:
        """Removes the checkpoints of later steps, the last one first: the run goes back."""

        def remove() -> None:
            for later in reversed(steps_in(self._directory)):
                if later > step:
                    checkpoint_files.remove(self._directory / str(later))

        broadcast_from_first(remove)

    def save_best(self, step: int, state: TrainState, history: History) -> None:
        """Saves the model as the best so far.

        Former ones go with the checkpoints that know them as their best: a run that goes back to
        one of these finds the model there.

        Raises:
          CheckpointError: the disk is full, or does not take it for another reason.
        """
        parts = contents_of(state, history)
        del parts["optimizer"]
        self._write(self._best, parts, {"step": step, "best": history.best})

    def restore(
        self, state: TrainState, batches: Any, *, until: int | None = None
    ) -> tuple[TrainState, History] | None:
        """Loads the latest sound checkpoint, and sets `batches` to where it was.

        Each damaged one is set aside, with a line that says what is wrong with it. A checkpoint
        whose best model is sound too is preferred to a later one whose best model is not; where
        there is none, the run goes on with the best of what it evaluates from there.

        Args:
          state: a state of this config; its arrays give shapes and placement.
          batches: the run's iterator, not yet drawn from.
          until: to go back: only checkpoints of at most this step count, and scheduled ones before
            others.

        Returns:
          None where there is no checkpoint: the run starts at the beginning.

        Raises:
          CheckpointError: it does not fit the state; or none is sound of those there were, or that
            `until` asks for; or the disk cannot be read.
        """
        chosen = _agreed(lambda: self._choose(until))
        if chosen is None:
            return None
        step, mended, lost = chosen
        self._mend(mended, set(lost), state)
        restored, history, position = self._read(step, state)
        batches.set_state(position)
        return restored, history

    def _read(self, step: int, state: TrainState) -> tuple[TrainState, History, Any]:
        """A checkpoint: the state, the history, and the place in the data."""
        wanted = {name: abstract(part) for name, part in contents_of(state, History()).items()}
        loaded = load(self._directory / str(step), wanted)
        restored = TrainState(
            step=loaded["history"]["step"],
            begun=loaded["history"]["begun"],
            params=loaded["weights"],
            ema=loaded.get("ema"),
            opt_state=loaded["optimizer"],
            rate=state.rate,
        )
        history = history_of(loaded)
        position = json.loads(loaded["history"]["batches"])
        return with_rate(restored, history.rate), history, position

    def _prepare(self) -> None:
        for place in (self._best, self._directory):
            place.mkdir(parents=True, exist_ok=True)
            checkpoint_files.tidy(place)

    def _remove_old(self, step: int, needed: set[int]) -> None:
        # Checkpoints of later steps are there when the run went back; it will replace them.
        kept = [other for other in steps_in(self._directory) if other <= step]
        for old in set(kept[: -self._keep]) - needed:
            checkpoint_files.remove(self._directory / str(old))
        known = [self._facts[step] for step in steps_in(self._directory) if step in self._facts]
        for old in set(steps_in(self._best)) - {_best_step(facts["best"]) for facts in known}:
            checkpoint_files.remove(self._best / str(old))

    def _is_scheduled(self, step: int) -> bool:
        return step in self._facts and self._facts[step]["scheduled"]

    def _choose(self, until: int | None) -> tuple[int, list[int], list[int]] | None:
        """The checkpoint to restore, those up to it whose best model is lost, and these models."""
        steps = [s for s in steps_in(self._directory) if until is None or s <= until]
        found = {step: _sound(self._directory / str(step)) for step in steps}
        facts = {step: facts for step, facts in found.items() if facts is not None}
        if not facts:
            if until is None and not checkpoint_files.damaged_in(self._directory):
                return None
            raise CheckpointError(self._nothing_sound(until))
        self._facts.update(facts)
        best = {step: _best_step(known["best"]) for step, known in facts.items()}
        named = {known for known in best.values() if known is not None}
        lost = {step for step in named if _sound(self._best / str(step)) is None}
        step = max(
            facts, key=lambda s: (until is None or self._is_scheduled(s), best[s] not in lost, s)
        )
        mended = [other for other in facts if other <= step and best[other] in lost]
        return step, mended, sorted(lost)

    def _nothing_sound(self, until: int | None) -> str:
        aside = ", ".join(folder.name for folder in checkpoint_files.damaged_in(self._directory))
        models = []
        for step in steps_in(self._best):
            with contextlib.suppress(checkpoint_files.DamagedError):
                _verified(self._best / str(step))
                models.append(str(step))
        return (
            f"{self._directory}: no sound checkpoint is left"
            f"{'' if until is None else f' to go back to, of step {until} or earlier'}; set aside "
            f"as damaged: {aside or 'none'}. Sound models in {self._best}: "
            f"{', '.join(models) or 'none'}. To go on, put a sound copy of a checkpoint there, "
            "named for its step. To begin anew, choose a new workdir, or move this one away"
        )

    def _mend(self, steps: list[int], lost: set[int], state: TrainState) -> None:
        """Gives each of these checkpoints another best model, unless one before brought it back.

        On disk too, because a run that is complete never saves again. It is the checkpoint's own
        model where that has been evaluated; else the next will be.
        """
        for step in steps:
            restored, history, position = self._read(step, state)
            former, history.best = _best_step(history.best), None
            if former not in lost:
                continue
            place = "the next one evaluated"
            if history.last_evaluated == step:
                history.best = history.evaluations[-1]
                place = "its own"
                self.save_best(step, restored, history)
                lost.discard(step)
            scheduled = broadcast_from_first(lambda step=step: self._is_scheduled(step))
            self._save(step, restored, history, position, scheduled=scheduled)
            print(
                f"the best model that checkpoint {step} knew, of step {former}, is lost; "
                f"{place} takes its place",
                flush=True,
            )

    def _save(
        self, step: int, state: TrainState, history: History, position: Any, *, scheduled: bool
    ) -> None:
        facts = {"step": step, "best": history.best, "scheduled": scheduled}
        self._write(self._directory, contents_of(state, history, position), facts)
        self._facts[step] = facts

    def _write(self, place: Path, parts: dict[str, Any], facts: dict[str, Any]) -> None:
        step = facts["step"]
        partial = place / f"{step}.partial"

        def finish() -> None:
            checkpoint_files.seal(partial, facts)
            checkpoint_files.publish(partial)

        try:
            ocp.save_checkpointables(str(partial), parts)
            broadcast_from_first(finish)
        except (OSError, ValueError) as error:
            checkpoint_files.tidy(place)
            left = ", ".join(map(str, self.steps)) or "none"
            raise CheckpointError(
                f"{place / str(step)} could not be saved ({error}). The checkpoints saved before "
                f"are as they were (steps: {left}); make room for another one and run again to go "
                "on"
            ) from error


def load_weights(directory: Path, like: Any, step: int | None = None) -> Weights:
    """Loads a model for evaluation, on the first device; on all, where there are many processes.

    Args:
      directory: `<workdir>/best` or `<workdir>/checkpoints`.
      like: the model's parameters, or anything with their structure, shapes and types; None takes
        them as they were saved.
      step: which checkpoint; the latest by default.

    Raises:
      CheckpointError: there is none, or it is damaged, or belongs to another model.
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
    except checkpoint_files.DamagedError as error:
        raise CheckpointError(
            f"{folder} is damaged: {error}. Run the training again, which sets it aside and mends "
            f"what it can, or choose another step of {steps}"
        ) from error
    if like is None:
        like = ocp.checkpointables_metadata(str(folder)).metadata["weights"]
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    if jax.process_count() > 1:
        device = replicated(data_mesh())
    params = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=device), like)
    count = jax.ShapeDtypeStruct((), jnp.int32, sharding=device)
    wanted: dict[str, Any] = {
        "history": {"json": "", "shapes": "", "batches": "", "step": count, "begun": count},
        "weights": params,
    }
    if (folder / "ema").is_dir():
        wanted["ema"] = params
    loaded = load(folder, wanted)
    return Weights(step, loaded["weights"], loaded.get("ema"), history_of(loaded))


def _sound(folder: Path) -> dict[str, Any] | None:
    """What the manifest says of a checkpoint; None, and it is set aside, where it is damaged."""
    try:
        return _verified(folder)
    except checkpoint_files.DamagedError as error:
        said = f"{folder} is damaged: {error}"
    if folder.exists():
        said += f"; set aside as {checkpoint_files.set_aside(folder).name}"
    print(said, flush=True)
    return None


def _verified(folder: Path) -> dict[str, Any]:
    """What the manifest says of a sound checkpoint.

    Raises:
      DamagedError: it is damaged.
      CheckpointError: the disk does not tell.
    """
    try:
        return checkpoint_files.verify(folder)
    except OSError as error:
        raise CheckpointError(
            f"{folder} cannot be read ({error}). It may be as it was written, so nothing has been "
            "changed. Run again when the disk can be read; if it never can, move that folder "
            "elsewhere"
        ) from error


def _agreed(find: Callable[[], Any]) -> Any:
    """`broadcast_from_first`, with a CheckpointError of the first process raised in all."""

    def found() -> list[Any]:
        try:
            return [find(), None]
        except CheckpointError as error:
            return [None, str(error)]

    value, refusal = broadcast_from_first(found)
    if refusal is not None:
        raise CheckpointError(refusal)
    return value


def _best_step(best: dict[str, Any] | None) -> int | None:
    return None if best is None else int(best["step"])
