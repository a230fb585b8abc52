"""Makes a run directory of a model that others have trained."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from modessm_jax.official.weights import Imported, WeightsError
from modessm_jax.runs import finished
from modessm_jax.runs.load import build_shapes
from modessm_jax.runs.state import by_path


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
    finished.check_new(workdir)
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
    dataset = {"sessions": list(sessions), "channels": imported.channels, "trials": {}}
    finished.write_run(workdir, config, dataset, imported.params)
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
