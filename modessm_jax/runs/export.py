"""Exports a model's parameters as one .npz file."""

from pathlib import Path

import jax
import numpy as np

from modessm_jax.runs.checkpoints import Weights, load_weights
from modessm_jax.runs.state import evaluation_params
from modessm_jax.runtime.files import replacing


def export(workdir: Path, out: Path, step: int | None = None) -> Weights:
    """Writes the parameters to evaluate with as an .npz, named by their path ("encoder/kernel").

    Read it with `numpy.load(out)`. Where the run keeps a running average, that is what is written.

    Args:
      workdir: of the run.
      out: the file, replaced in one go; its folder is made if need be.
      step: of a checkpoint; the run's best model by default.

    Returns:
      What was written.

    Raises:
      CheckpointError: there is no such checkpoint, or it is damaged.
    """
    directory = Path(workdir) / ("best" if step is None else "checkpoints")
    weights = load_weights(directory, None, step)
    leaves = jax.tree_util.tree_leaves_with_path(evaluation_params(weights))
    arrays = {
        jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf)
        for path, leaf in leaves
    }
    with replacing(out) as partial, partial.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)
    return weights
