"""Loads the best model of a run, exports it, and reads data for it."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from modessm_jax.data.batches import EvaluationBatches
from modessm_jax.data.recordings import Recordings, Trial, read_recordings
from modessm_jax.data.validation import DataError
from modessm_jax.models.build import Functional, build
from modessm_jax.runs.checkpoints import load_weights
from modessm_jax.runs.identity import ADDED_KEYS, check_format, read_identity
from modessm_jax.runs.state import evaluation_params
from modessm_jax.runtime.files import replacing


class Run(NamedTuple):
    """A trained model, with what it was trained on."""

    config: dict[str, Any]
    sessions: tuple[str, ...]  # names; the model's session ids are their indices
    channels: int
    functional: Functional  # its params are shapes
    params: Any  # of the best model: the running average where the run keeps one
    step: int  # updates made to them


def build_model(config: Mapping[str, Any], channels: int, sessions: int) -> Functional:
    """Builds the model of a whole config, for so many channels and sessions."""
    return build(
        config["model"],
        channels=channels,
        sessions=sessions,
        hides_bins=config["augment"].get("time_masks", 0) > 0,
        seed=config["training"]["seed"],
    )


def build_shapes(config: Mapping[str, Any], channels: int, sessions: int) -> Functional:
    """`build_model` with shapes as parameters: initial values take seconds to compute."""
    built: list[Functional] = []

    def params() -> Any:
        built.append(build_model(config, channels, sessions))
        return built[0].params

    shapes = jax.eval_shape(params)
    return built[0]._replace(params=shapes)


def describe_data(*splits: Recordings) -> dict[str, Any]:
    """What identifies the data of a run, as plain JSON values: the same wherever the files are.

    These are the channels, the order of the sessions, and for each session the number of trials and
    bins, with a checksum of the trials' names, features, labels and sentences.
    """
    return {
        "sessions": list(splits[0].sessions),
        "channels": splits[0].channels,
        "trials": {part.split: _describe_trials(part) for part in splits},
    }


def _describe_trials(part: Recordings) -> dict[str, str]:
    by_session: dict[str, list[tuple[Trial, int]]] = {}
    for trial, features in zip(part.trials, part.checksums, strict=True):
        by_session.setdefault(trial.session, []).append((trial, features))
    described = {}
    for session, trials in by_session.items():
        sha = hashlib.sha256()
        for trial, features in trials:
            labels = b"" if trial.labels is None else trial.labels.tobytes()
            facts = f"{trial.name} {trial.bins} {features} {trial.sentence!r} {len(labels)} "
            sha.update(facts.encode() + labels)
        bins = sum(trial.bins for trial, _ in trials)
        described[session] = f"{len(trials)} trials, {bins} bins, {sha.hexdigest()[:16]}"
    return described


def load_run(workdir: str | Path) -> Run:
    """Loads the best model of a run.

    Raises:
        CheckpointError: the directory holds no trained model, or one that cannot be read, or is of
            a later format.
    """
    workdir = Path(workdir)
    config, dataset = read_identity(workdir)
    sessions, channels = tuple(dataset["sessions"]), dataset["channels"]
    functional = build_shapes(config, channels, len(sessions))
    weights = load_weights(workdir / "best", functional.params)
    return Run(config, sessions, channels, functional, evaluation_params(weights), weights.step)


def export(workdir: Path, out: Path, step: int | None = None) -> int:
    """Writes a model's parameters for `numpy.load`, named by their path ("encoder/kernel").

    Where the run keeps a running average of the parameters, the average is written.

    Args:
        workdir: of the run.
        out: the file; its folder is made if need be.
        step: of a checkpoint; the run's best model by default.

    Returns:
        The updates made to the model.

    Raises:
        CheckpointError: there is no such checkpoint, or it is damaged, or of a later format.
    """
    check_format(workdir)
    weights = load_weights(workdir / ("best" if step is None else "checkpoints"), None, step)
    leaves = jax.tree_util.tree_leaves_with_path(evaluation_params(weights))
    arrays = {
        jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf)
        for path, leaf in leaves
    }
    with replacing(out) as partial, partial.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)
    return weights.step


def read_configured(
    data: dict[str, Any], split: str, *, root: str | Path | None = None, **further: Any
) -> Recordings:
    """Reads a split as `data` in a config says.

    Args:
        data: the config's.
        split: "train", "val" or "test".
        root: of the recordings, if it is not `data.root`.
        further: `expect_channels` and `index_folder` of `read_recordings`.

    Raises:
        DataError: see `read_recordings`.
    """
    data = ADDED_KEYS | data
    return read_recordings(
        root or data["root"],
        split,
        sessions=data["sessions"],
        table=_moved(data["table"], data["root"], root),
        memory_gib=data["memory_gib"],
        exclude=data["exclude"],
        channels=data["channels"],
        **further,
    )


def read_split(
    run: Run, split: str, data_root: str | Path | None = None
) -> tuple[Recordings, EvaluationBatches]:
    """Reads a split for the model of a run.

    Args:
        run: from `load_run`.
        split: "train", "val" or "test".
        data_root: folder of the recordings; by default the one the run was trained on.

    Raises:
        DataError: the data are missing or invalid, or have a session the run was not trained on.
    """
    data = run.config["data"]
    recordings = read_configured(data, split, root=data_root, expect_channels=run.channels)
    unknown = sorted({trial.session for trial in recordings.trials} - set(run.sessions))
    if unknown:
        raise DataError(
            f"the model was not trained on the sessions {', '.join(unknown)}, but on "
            f"{', '.join(run.sessions)}. Give a root of these sessions, or train on the new ones."
        )
    # Session ids follow the folders under the root, which may have changed since training.
    recordings.sessions = run.sessions
    batches = EvaluationBatches(
        recordings, data["batch_size"], run.functional.multiple, data["buckets"]
    )
    return recordings, batches


def _moved(table: str, root: str, data_root: str | Path | None) -> str | Path:
    """The path of the table of corpora: one that was in the data's folder has moved with it."""
    among = table and Path(table).is_relative_to(root)
    return Path(data_root) / Path(table).relative_to(root) if data_root and among else table
