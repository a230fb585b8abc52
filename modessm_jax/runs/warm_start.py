"""Begins a run with the weights of another: by path, and the sessions by name.

--config.init.run=RUN         its best model
--config.init.run=model.npz   weights that `experiments.checkpoints export` wrote
"""

import fnmatch
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from modessm_jax.runs.checkpoints import load_weights
from modessm_jax.runs.identity import read_identity
from modessm_jax.runs.load import SESSIONS, trained_sessions
from modessm_jax.runs.sessions import LAYERS, MEAN, NEAREST, nearest
from modessm_jax.runs.state import by_path, evaluation_params

IDENTITY = "identity"
RULES = (NEAREST, MEAN, IDENTITY)


class Source(NamedTuple):
    """Weights to begin with.

    Attributes:
        path: of the run or file.
        params: by path, such as "head/kernel".
        sessions: those trained on, with their entries in the session layers.
    """

    path: Path
    params: dict[str, np.ndarray]
    sessions: dict[str, int]


def read_source(path: str | Path) -> Source:
    """Reads the best model of a run, or a file of exported weights.

    Raises:
        CheckpointError: the directory holds no trained model, or one that cannot be read.
        ValueError: the file holds no weights.
    """
    path = Path(path)
    if path.is_file():
        try:
            with np.load(path, allow_pickle=False) as file:
                params = {name: file[name] for name in file.files}
        except (ValueError, zipfile.BadZipFile, AttributeError) as error:
            raise ValueError(
                f"init.run: {path} is no file of exported weights ({error})"
            ) from error
        names = params.pop(SESSIONS, np.array([])).tolist()
        return Source(path, params, {name: entry for entry, name in enumerate(names)})
    _, dataset = read_identity(path)
    tree = jax.device_get(evaluation_params(load_weights(path / "best", None)))
    return Source(path, by_path(tree), trained_sessions(dataset))


def inherited(source: Source, config: Mapping[str, Any], channels: int) -> list[str]:
    """The sessions whose adapters a new run keeps beside those it trains.

    None where the adapters are not taken over: they are skipped, or of other channels.
    """
    layers = {path: leaf for path, leaf in source.params.items() if _of_sessions(path)}
    fits = layers and all(set(leaf.shape[1:]) == {channels} for leaf in layers.values())
    return [] if not fits or any(_skipped(path, config) for path in layers) else [*source.sessions]


def warm_start(
    params: dict[str, Any], source: Source, sessions: Mapping[str, int], config: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Initial parameters with those of a source in their place.

    Args:
        params: nested dict of float32 arrays, as they are initialised.
        source: see `read_source`.
        sessions: of the new run, with their entries in the session layers.
        config: `init` of the config: `skip` has globs over the paths of parameters that stay as
            they are initialised; `sessions` says where the adapters of sessions begin that the
            source does not have: at that of the "nearest" in time, the "mean", or the "identity".

    Returns:
        The parameters; and, as plain JSON values, a `checksum` of what was taken, the paths
        `loaded`, `new` and `left`, and for each session what its adapter is `mapped` from.

    Raises:
        ValueError: shapes differ in parameters that are not skipped, nothing fits, or a pattern
            matches no parameter.
    """
    rule = config["sessions"]
    if rule not in RULES:
        raise ValueError(f"init.sessions is {rule!r}; choose one of {', '.join(RULES)}")
    flat = by_path(params)
    for pattern in config["skip"]:
        if not fnmatch.filter(flat, pattern):
            raise ValueError(f"init.skip: {pattern!r} matches no parameter of {', '.join(flat)}")
    mapped = {name: _begin(name, source.sessions, rule) for name in sessions}
    chosen = {path for path in flat if path in source.params and not _skipped(path, config)}
    different = []
    for path in sorted(chosen):
        found, like = source.params[path], flat[path]
        if _of_sessions(path) and found.shape[1:] == like.shape[1:]:
            found = _adapters(found, source.sessions, sessions, mapped)
        if found.shape == like.shape:
            flat[path] = np.asarray(found, like.dtype)
        else:
            different.append(f"  {path}: {found.shape} there, {like.shape} here")
    if different or not chosen:
        what = "\n".join(different) or "  no parameter of this name"
        raise ValueError(
            f"init.run: the weights of {source.path} do not fit this model. To begin a part anew, "
            f"skip it, as --config.init.skip=\"('{LAYERS}/*',)\". They differ in\n{what}"
        )
    adapted = any(_of_sessions(path) for path in chosen)
    report = {
        "from": str(source.path),
        "checksum": _checksum(flat[path] for path in sorted(chosen)),
        "loaded": sorted(chosen),
        "mapped": mapped if adapted else {},
        "new": sorted(flat.keys() - chosen),
        "left": sorted(source.params.keys() - chosen),
    }
    return jax.tree.unflatten(jax.tree.structure(params), list(flat.values())), report


def format_report(report: Mapping[str, Any]) -> str:
    """A table: for each part of the model how many arrays were loaded, are new, or were left."""
    kinds = ("loaded", "new", "left")
    parts = sorted({path.split("/")[0] for kind in kinds for path in report[kind]})
    width = max(map(len, parts))
    lines = [f"weights of {report['from']}", f"{'':{width}}" + "".join(f"{k:>8}" for k in kinds)]
    for part in parts:
        of_part = (sum(path.split("/")[0] == part for path in report[kind]) for kind in kinds)
        lines.append(f"{part:{width}}" + "".join(f"{count or '':>8}" for count in of_part))
    other = {name: like for name, like in report["mapped"].items() if name != like}
    same = len(report["mapped"]) - len(other)
    if report["mapped"]:
        begun = "".join(f", {name} as {like}" for name, like in other.items())
        lines.append(f"adapters: {same} sessions as they were{begun}")
    return "\n".join(lines)


def _checksum(arrays: Iterable[np.ndarray]) -> int:
    """CRC-32 of arrays, one after the other."""
    checksum = 0
    for array in arrays:
        checksum = zlib.crc32(np.ascontiguousarray(array).data, checksum)
    return checksum


def _of_sessions(path: str) -> bool:
    return path.startswith(f"{LAYERS}/")


def _skipped(path: str, config: Mapping[str, Any]) -> bool:
    return any(fnmatch.fnmatchcase(path, pattern) for pattern in config["skip"])


def _begin(name: str, known: Mapping[str, int], rule: str) -> str:
    """What a session's adapter begins as: a session of the source, or "mean" or "identity"."""
    if name in known:
        return name
    return nearest(name, known) if rule == NEAREST and known else rule if known else IDENTITY


def _adapters(
    found: np.ndarray,
    known: Mapping[str, int],
    sessions: Mapping[str, int],
    mapped: Mapping[str, str],
) -> np.ndarray:
    """The session layers of the new run. They are differences from the identity, which is zero."""
    entries = np.zeros((1 + max(sessions.values()), *found.shape[1:]), found.dtype)
    for name, entry in sessions.items():
        if mapped[name] == MEAN:
            entries[entry] = found[list(known.values())].mean(axis=0)
        elif mapped[name] != IDENTITY:
            entries[entry] = found[known[mapped[name]]]
    return entries
