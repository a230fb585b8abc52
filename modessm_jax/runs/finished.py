"""Writes a run directory whose model was made by other means than training it there."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax

from modessm_jax.runs.checkpoints import Checkpoints
from modessm_jax.runs.history import History
from modessm_jax.runs.identity import check_identity
from modessm_jax.runs.state import create_state
from modessm_jax.runtime.mesh import data_mesh


def check_new(workdir: Path) -> None:
    """Checks that a folder can take a new run.

    Raises:
        FileExistsError: it holds something.
    """
    if workdir.exists() and any(workdir.iterdir()):
        raise FileExistsError(f"{workdir} is not empty; give a new folder for the run")


def write_run(
    workdir: Path,
    config: Mapping[str, Any],
    dataset: Mapping[str, Any],
    params: Any,
    *,
    step: int = 0,
) -> None:
    """Writes a run that evaluates, decodes and can be begun from like any other.

    Args:
        workdir: a folder that does not exist, or is empty.
        config: of a run of this model, as plain JSON values.
        dataset: see `runs.load.describe_data`.
        params: nested dict of arrays, of the best model.
        step: the updates made to them.

    Raises:
        FileExistsError: the folder holds something.
    """
    check_new(workdir)
    workdir.mkdir(parents=True, exist_ok=True)
    check_identity(workdir, dict(config), dict(dataset), resuming=False)
    arrays = jax.tree.map(lambda array: np.ascontiguousarray(array, np.float32), params)
    state = create_state(arrays, optax.identity(), data_mesh(), ema=False)
    Checkpoints(workdir, keep=1).save_best(step, state, History())
