"""Saving and finding again everything a run needs to go on, and the best of its models.

<workdir>/checkpoints/<step>/{weights,ema,optimizer,data,history}   the last `keep`
<workdir>/best/<step>/{weights,ema,history}                         the best evaluation's
"""

import json
import shutil
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from orbax.checkpoint import v1 as ocp

from modessm_jax.training.history import History
from modessm_jax.training.state import TrainState
from modessm_jax.training.writers import write_json

# Keys that may differ between a run and its resumption, because neither the parameters nor the
# choice of the best depend on them. `eval_every` is not among them: it decides which models are
# candidates for the best. Nor is `steps`, which shapes the learning rate from the first update on.
FREE_KEYS = frozenset(
    {
        "data.memory_gib",
        "data.workers",
        "training.keep",
        "training.log_every",
        "training.save_every",
    }
)


class CheckpointError(ValueError):
    """A checkpoint that cannot be read, or that belongs to another model or config."""


class Weights(NamedTuple):
    """What evaluation and decoding need of a checkpoint."""

    step: int
    params: Any
    ema: Any  # None where the run keeps no average
    history: History

    @property
    def evaluation_params(self) -> Any:
        """The running average where there is one, as in `TrainState`."""
        return self.params if self.ema is None else self.ema


class Checkpoints:
    """The checkpoints of one working directory; a context manager.

    Saving returns once everything is on disk. A checkpoint appears under its step's name only when
    it is complete, so a process killed while saving leaves the one before as the latest.
    """

    def __init__(self, workdir: Path, *, keep: int):
        if keep < 1:
            raise ValueError(f"training.keep is {keep}; at least one checkpoint must be kept")
        workdir = Path(workdir).absolute()
        self._best = workdir / "best"
        self._directory = workdir / "checkpoints"
        self._checkpointer = ocp.training.Checkpointer(
            str(self._directory),
            preservation_policy=ocp.training.preservation_policies.LatestN(keep),  # pyright: ignore
            cleanup_tmp_directories=True,
        )

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._checkpointer.close()

    @property
    def latest(self) -> int | None:
        """The step to resume from."""
        latest = self._checkpointer.latest
        return None if latest is None else latest.step

    def save(self, step: int, state: TrainState, batches: Any, history: History) -> None:
        """Saves the state after `step` updates, with the iterator that yields the next batch."""
        self._checkpointer.save_checkpointables(
            step, {**_parts(state, history), "data": batches}, force=True
        )
        self._forget_former_best(history)

    def save_best(self, step: int, state: TrainState, history: History) -> None:
        """Saves the model as the best so far.

        The former best goes when the next checkpoint has been saved: until then, a run that is
        killed resumes from a checkpoint whose history still names it.
        """
        parts = _parts(state, history)
        del parts["optimizer"]
        ocp.save_checkpointables(str(self._best / str(step)), parts, overwrite=True)

    def _forget_former_best(self, history: History) -> None:
        kept = None if history.best is None else str(int(history.best["step"]))
        for folder in sorted(self._best.glob("*")):
            if folder.name != kept:
                shutil.rmtree(folder)

    def restore(self, state: TrainState, batches: Any) -> tuple[TrainState, History]:
        """Loads the latest checkpoint, and sets `batches` to where it was.

        Args:
          state: a state of this config; its arrays give shapes and placement.
          batches: the run's iterator, not yet drawn from.

        Raises:
          CheckpointError: it cannot be read, or does not fit the state.
        """
        step = self.latest
        assert step is not None, "restore is called only where there is a checkpoint"
        wanted = {name: _abstract(part) for name, part in _parts(state, History()).items()}
        loaded = _load(self._directory / str(step), {**wanted, "data": batches})
        restored = TrainState(
            loaded["history"]["step"], loaded["weights"], loaded.get("ema"), loaded["optimizer"]
        )
        return restored, _history(loaded)


def load_weights(directory: Path, like: Any, step: int | None = None) -> Weights:
    """Loads a model for evaluation, on the first device.

    Args:
      directory: `<workdir>/best` or `<workdir>/checkpoints`.
      like: the model's parameters, or anything with their structure, shapes and types.
      step: which checkpoint; the latest by default.

    Raises:
      CheckpointError: there is none, or it cannot be read, or belongs to another model.
    """
    directory = Path(directory).absolute()
    steps = sorted(int(f.name) for f in directory.glob("*") if f.name.isdigit())
    if not steps:
        raise CheckpointError(f"{directory}: no checkpoint here; train first, or give the workdir")
    step = steps[-1] if step is None else step
    if step not in steps:
        raise CheckpointError(f"{directory}: no checkpoint of step {step}; there are {steps}")
    folder = directory / str(step)
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    params = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=device), like)
    count = jax.ShapeDtypeStruct((), jnp.int32, sharding=device)
    wanted: dict[str, Any] = {
        "history": {"json": "", "shapes": "", "step": count},
        "weights": params,
    }
    if (folder / "ema").is_dir():
        wanted["ema"] = params
    loaded = _load(folder, wanted)
    return Weights(step, loaded["weights"], loaded.get("ema"), _history(loaded))


def claim(workdir: Path, config: dict[str, Any], *, resuming: bool) -> None:
    """Writes `config.json`, or checks that the run resumed is the run that was started.

    Args:
      workdir: of the run.
      config: as plain JSON values.
      resuming: whether the directory holds a checkpoint; without one there is nothing to protect.

    Raises:
      CheckpointError: the config differs from the saved one in a key that changes the result.
    """
    path = workdir / "config.json"
    if resuming:
        if not path.exists():
            raise CheckpointError(f"{path} is missing beside checkpoints; choose a new workdir")
        saved, present = _flat(json.loads(path.read_text(encoding="utf-8"))), _flat(config)
        differing = sorted(
            key
            for key in (saved.keys() | present.keys()) - FREE_KEYS
            if saved.get(key, "absent") != present.get(key, "absent")
        )
        if differing:
            lines = [
                f"  {key}: {saved.get(key, 'absent')!r} then, {present.get(key, 'absent')!r} now"
                for key in differing
            ]
            raise CheckpointError(
                f"{workdir} holds a run of another config; resume it with its own config or choose "
                "a new workdir. They differ in\n" + "\n".join(lines)
            )
    write_json(path, config)


def _parts(state: TrainState, history: History) -> dict[str, Any]:
    parts = {
        # As strings: in a tree of numbers every figure of the history would be an array on disk.
        # The step is here because Orbax warns of a part without arrays at every save.
        "history": {
            "json": history.to_json(),
            "shapes": json.dumps(_shapes(state.params)),
            "step": state.step,
        },
        "weights": state.params,
        "optimizer": state.opt_state,
    }
    return parts if state.ema is None else {**parts, "ema": state.ema}


def _abstract(part: Any) -> Any:
    return jax.tree.map(
        lambda x: (
            jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding)
            if isinstance(x, jax.Array)
            else x
        ),
        part,
    )


def _load(folder: Path, wanted: dict[str, Any]) -> dict[str, Any]:
    missing = sorted(name for name in wanted if not (folder / name).is_dir())
    if missing:
        raise _unreadable(folder, f"it has no {', '.join(missing)}")
    loaded = {}
    try:
        # One at a time: where one part fails, Orbax forgets to await the others. The history comes
        # first, because it tells in plain words what Orbax would not.
        for name in ["history", *(wanted.keys() - {"history"})]:
            loaded |= ocp.load_checkpointables(str(folder), {name: wanted[name]})
            if name == "history":
                _check_shapes(folder, json.loads(loaded[name]["shapes"]), wanted["weights"])
    except CheckpointError:
        raise
    except (KeyError, TypeError, ValueError, OSError) as error:
        # Orbax says only which handler gave up; the cause is at the end of the chain.
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        raise _unreadable(folder, str(cause)) from error
    return loaded


def _shapes(params: Any) -> dict[str, str]:
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return {jax.tree_util.keystr(path): f"{leaf.dtype}{list(leaf.shape)}" for path, leaf in leaves}


def _check_shapes(folder: Path, saved: dict[str, str], params: Any) -> None:
    present = _shapes(params)
    differing = [
        f"{name} is {saved.get(name, 'absent')} there, {present.get(name, 'absent')} here"
        for name in sorted(saved.keys() | present.keys())
        if saved.get(name) != present.get(name)
    ]
    if differing:
        raise _unreadable(folder, "; ".join(differing[:5]))


def _unreadable(folder: Path, cause: str) -> CheckpointError:
    return CheckpointError(
        f"{folder}: the checkpoint of step {folder.name} cannot be read, or was written by "
        f"another model. Delete that folder to go on from the one before, or choose a new "
        f"workdir. Cause: {cause}"
    )


def _history(loaded: dict[str, Any]) -> History:
    return History.from_json(loaded["history"]["json"])


def _flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(tree, dict) or not tree:
        return {prefix.removesuffix("."): tree}
    return {
        key: value
        for name, branch in tree.items()
        for key, value in _flat(branch, f"{prefix}{name}.").items()
    }
