"""Makes a run directory of a model that others have trained."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax

from modessm_jax.official.weights import Imported, WeightsError
from modessm_jax.runs.checkpoints import Checkpoints
from modessm_jax.runs.history import History
from modessm_jax.runs.identity import check_identity
from modessm_jax.runs.load import build_shapes
from modessm_jax.runs.state import by_path, create_state
from modessm_jax.runtime.mesh import data_mesh


def write_run(
    workdir: Path, recipe: Mapping[str, Any], imported: Imported, sessions: Sequence[str]
) -> dict[str, Any]:
    """Writes a run whose best model is the imported one, after no update.

    Args:
        workdir: a folder that does not exist, or is empty.
        recipe: a config of that kind of model; its sizes are replaced by those of the imported one.
        imported: the model.
        sessions: names of the sessions, in the order of the model's.

    Returns:
        The config of the run.

    Raises:
        FileExistsError: the folder holds something.
        WeightsError: the weights do not fit each other, or the number of sessions does not fit.
    """
    if workdir.exists() and any(workdir.iterdir()):
        raise FileExistsError(f"{workdir} is not empty; give a new folder for the run")
    if imported.sessions is not None and len(sessions) != imported.sessions:
        raise WeightsError(f"{len(sessions)} sessions are named, the model has {imported.sessions}")
    if not sessions or len(set(sessions)) < len(sessions):
        raise WeightsError(f"the sessions {list(sessions)} are none, or not all different")
    config = {**recipe, "model": {**recipe["model"], **imported.model, "dtype": "float32"}}
    try:
        shapes = build_shapes(config, imported.channels, len(sessions)).params
    except ValueError as error:
        raise WeightsError(f"no model of these sizes can be built: {error}") from error
    _check_shapes(imported.params, shapes)
    workdir.mkdir(parents=True, exist_ok=True)
    dataset = {"sessions": list(sessions), "channels": imported.channels, "trials": {}}
    check_identity(workdir, config, dataset, resuming=False)
    params = jax.tree.map(lambda array: np.ascontiguousarray(array, np.float32), imported.params)
    state = create_state(params, optax.identity(), data_mesh(), ema=False)
    Checkpoints(workdir, keep=1).save_best(0, state, History())
    return config


def _check_shapes(params: Any, shapes: Any) -> None:
    found, needed = (
        {path: np.shape(leaf) for path, leaf in by_path(tree).items()} for tree in (params, shapes)
    )
    for name in sorted(found.keys() | needed.keys()):
        if found.get(name) != needed.get(name):
            raise WeightsError(
                f"the weights do not fit the settings: {name} has the shape {found.get(name)} and "
                f"needs {needed.get(name)}"
            )
