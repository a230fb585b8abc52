"""The adapter of one session: taken from a run's parameters, and put into a run of its own."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from modessm_jax.runs.finished import write_run
from modessm_jax.runs.identity import read_identity
from modessm_jax.runs.load import Run
from modessm_jax.runs.sessions import LAYERS, adapters, with_mean

# The arrays of `models.inputs.SessionAdaptation` for one session: float32 "weight" and "offset".
Adapter = dict[str, Any]


def adapter_of(params: Mapping[str, Any], entry: int) -> Adapter:
    """The adapter at an entry of the session layers."""
    return {name: leaf[entry] for name, leaf in params[LAYERS].items()}


def with_adapter(params: Mapping[str, Any], adapter: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of a model with this adapter alone, for session 0."""
    return {**params, LAYERS: {name: leaf[None] for name, leaf in adapter.items()}}


def with_entry(params: Mapping[str, Any], entry: int, adapter: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of a model with this adapter at an entry of the session layers."""
    layers = params[LAYERS]
    new = {name: jnp.asarray(leaf).at[entry].set(adapter[name]) for name, leaf in layers.items()}
    return {**params, LAYERS: new}


def known_adapters(run: Run) -> dict[str, int]:
    """The entries of the sessions in the session layers, of a model that has adapters.

    Raises:
        ValueError: it has none.
    """
    if run.adapters is None:
        raise ValueError(
            "this model has no adapters of sessions (model.session is 'none'): recalibrate it with "
            "labels, by the recipe front_end or all"
        )
    return run.adapters


def first_adapter(run: Run, session: str, rule: str) -> Adapter:
    """What the adapter of a session begins as: its own, or that of the session nearest in time.

    Args:
        run: whose model has adapters.
        session: its name.
        rule: for a session that the model was not trained on: "nearest", or the "mean" of all.

    Raises:
        ValueError: the model has no adapters.
    """
    found, _ = adapters([session], known_adapters(run), untrained=rule)
    return adapter_of(run.params, found[session])


def with_session(run: Run, session: str, adapter: Adapter) -> Run:
    """The run with this adapter for a session, which may be new, and all else as it was."""
    names = [name for name in run.sessions if name != session]
    rows = [adapter_of(run.params, run.sessions[name]) for name in names] + [adapter]
    stacked = {key: np.stack([np.asarray(row[key]) for row in rows]) for key in adapter}
    sessions = {name: entry for entry, name in enumerate([*names, session])}
    params = with_mean({**run.params, LAYERS: stacked}, sessions)
    return run._replace(sessions=sessions, params=params)


def write_recalibrated(out: Path, workdir: Path, run: Run, session: str, root: Path) -> None:
    """Writes a run that `with_session` gave.

    Args:
        out: a folder that does not exist, or is empty.
        workdir: of the run that it was made from.
        run: with the session.
        session: its name.
        root: of its recordings, for the config.

    Raises:
        FileExistsError: the folder holds something.
    """
    config, dataset = read_identity(workdir)
    chosen = config["data"]["sessions"]
    data = {"root": str(root), "sessions": [*chosen, session] if chosen else chosen}
    names = list(run.sessions)
    dataset = {**dataset, "sessions": names, "folders": names}
    params = jax.tree.map(np.asarray, run.params)
    params[LAYERS] = {key: leaf[: len(names)] for key, leaf in params[LAYERS].items()}
    config = {**config, "data": {**config["data"], **data}}
    write_run(out, config, dataset, params, step=run.step)
