"""What is in the folder of a checkpoint, and reading it."""

import json
import re
from pathlib import Path
from typing import Any

import jax
from orbax.checkpoint import v1 as ocp

from modessm_jax.training.history import History
from modessm_jax.training.state import TrainState


class CheckpointError(ValueError):
    """A checkpoint that cannot be read, or that belongs to another model or config."""


def contents_of(state: TrainState, history: History, position: Any = None) -> dict[str, Any]:
    """What is saved of a run, by the names it has on disk.

    Args:
      position: the state of the iterator, plain JSON values.
    """
    parts = {
        # As strings: in a tree of numbers every figure of the history would be an array on disk.
        # The counts are here because Orbax warns of a part without arrays at every save.
        "history": {
            "json": history.to_json(),
            "shapes": json.dumps(_shapes(state.params)),
            # Here, not as an iterator of Orbax's, which has a file for each process: it is the same
            # in all, and the run may go on with another number of them.
            "batches": json.dumps(position),
            "step": state.step,
            "begun": state.begun,
        },
        "weights": state.params,
        "optimizer": state.opt_state,
    }
    return parts if state.ema is None else {**parts, "ema": state.ema}


def abstract(part: Any) -> Any:
    """Shapes, types and placement of the arrays in a part; the rest as it is."""
    return jax.tree.map(
        lambda x: (
            jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding)
            if isinstance(x, jax.Array)
            else x
        ),
        part,
    )


def load(folder: Path, wanted: dict[str, Any]) -> dict[str, Any]:
    """Reads the parts of a folder that has been verified.

    Args:
      wanted: for each part, its structure, with `jax.ShapeDtypeStruct` for the arrays.

    Raises:
      CheckpointError: a part is missing, or has another structure.
    """
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
    # Orbax tells the number of a layer as a string.
    names = [re.sub(r"\['(\d+)'\]", r"[\1]", jax.tree_util.keystr(path)) for path, _ in leaves]
    shapes = [f"{leaf.dtype}{list(leaf.shape)}" for _, leaf in leaves]
    return dict(zip(names, shapes, strict=True))


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
        f"{folder}: the checkpoint of step {folder.name} is as it was written, but cannot be read "
        "here, or was written by another model. Go on with the model, the code and the packages "
        f"that wrote it, or choose a new workdir. Cause: {cause}"
    )


def history_of(loaded: dict[str, Any]) -> History:
    """The history, of what `load` gave."""
    return History.from_json(loaded["history"]["json"])
