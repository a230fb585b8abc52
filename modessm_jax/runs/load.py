"""Loads the best model of a run, exports it, and reads data for it."""

import hashlib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from modessm_jax.data.batches import EvaluationBatches
from modessm_jax.data.normalization import read_normalization
from modessm_jax.data.recordings import Recordings, Trial, read_recordings
from modessm_jax.data.roots import WHERE_DATA_COMES_FROM
from modessm_jax.data.validation import DataError
from modessm_jax.models.build import Functional, build
from modessm_jax.runs.checkpoints import load_weights
from modessm_jax.runs.identity import check_format, read_identity, with_added_keys
from modessm_jax.runs.sessions import REFUSE, Choice, choose, with_mean
from modessm_jax.runs.state import by_path, evaluation_params
from modessm_jax.runtime.files import replacing

SESSIONS = "sessions"  # in an exported file, beside the paths of the parameters


class Run(NamedTuple):
    """A trained model, with what it was trained on."""

    config: dict[str, Any]
    sessions: dict[str, int]  # those trained on, by name: their entries in the session layers
    channels: int
    functional: Functional  # its params are shapes
    # Of the best model: the running average where the run keeps one. The session layers have one
    # entry more, the mean of the sessions trained on.
    params: Any
    step: int  # updates made to them

    @property
    def adapters(self) -> dict[str, int] | None:
        """The sessions with an adapter; None where the model has none, and takes any session."""
        return None if self.config["model"].get("session") == "none" else self.sessions


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


def describe_data(*splits: Recordings, sessions: Collection[str] | None = None) -> dict[str, Any]:
    """What identifies the data of a run, as plain JSON values: the same wherever the files are.

    These are the channels, the sessions that the model has an adapter for, in the order of their
    entries (by default all under the root), and for each session the number of trials and bins,
    with a checksum of the trials' names, features, labels and sentences.
    """
    return {
        "sessions": list(splits[0].sessions if sessions is None else sessions),
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
    channels = dataset["channels"]
    functional = build_shapes(config, channels, len(dataset["sessions"]))
    weights = load_weights(workdir / "best", functional.params)
    sessions = trained_sessions(dataset)
    params = with_mean(evaluation_params(weights), sessions)
    return Run(config, sessions, channels, functional, params, weights.step)


def trained_sessions(dataset: Mapping[str, Any]) -> dict[str, int]:
    """The sessions that a run was trained on, with their entries in the session layers.

    Before format 4 a run had entries for all folders under its root, with training trials or not.
    """
    entries = {name: entry for entry, name in enumerate(dataset["sessions"])}
    trials = dataset["trials"].get("train")
    if "folders" in dataset or trials is None:
        return entries
    return {name: entry for name, entry in entries.items() if name in trials}


def export(workdir: Path, out: Path, step: int | None = None) -> int:
    """Writes a model's parameters for `numpy.load`, named by their path ("encoder/kernel").

    `sessions` are the names of the entries of the session layers, in their order. Where the run
    keeps a running average of the parameters, the average is written.

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
    arrays = {path: np.asarray(x) for path, x in by_path(evaluation_params(weights)).items()}
    sessions = np.array(read_identity(workdir)[1]["sessions"], str)
    with replacing(out) as partial, partial.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays, **{SESSIONS: sessions})
    return weights.step


def read_configured(
    data: dict[str, Any],
    split: str,
    *,
    root: str | Path | None = None,
    sessions: Sequence[str] | None = None,
    **further: Any,
) -> Recordings:
    """Reads a split as `data` in a config says.

    Args:
        data: the config's.
        split: "train", "val" or "test".
        root: of the recordings, if it is not `data.root`.
        sessions: to read, if they are not `data.sessions`.
        further: `expect_channels` and `index_folder` of `read_recordings`.

    Raises:
        DataError: see `read_recordings`.
    """
    data = with_added_keys({"data": data})["data"]
    return read_recordings(
        root or data["root"],
        split,
        sessions=data["sessions"] if sessions is None else sessions,
        table=_moved(data["table"], data["root"], root),
        memory_gib=data["memory_gib"],
        exclude=data["exclude"],
        channels=data["channels"],
        normalization=read_normalization(data),
        **further,
    )


def read_split(
    run: Run, split: str, data_root: str | Path | None = None, choice: Choice | None = None
) -> tuple[Recordings, EvaluationBatches]:
    """Reads a split for the model of a run.

    Args:
        run: from `load_run`.
        split: "train", "val" or "test".
        data_root: folder of the recordings; by default the one the run was trained on.
        choice: of sessions; by default those of `data.sessions` that the run was trained on, and
            the others as `data.untrained_sessions` says.

    Raises:
        DataError: the data are missing or invalid, or have no session that can be scored.
    """
    data = run.config["data"]
    if choice is None:
        choice = Choice(untrained=data.get("untrained_sessions", REFUSE))
    root = data_root or data["root"]
    if not root:
        raise DataError(f"the run has no data root: give --data_root. {WHERE_DATA_COMES_FROM}.")
    adapters = choose(choice, run.adapters, Path(root), split, data["sessions"])
    recordings = read_configured(
        data, split, root=data_root, sessions=list(adapters), expect_channels=run.channels
    )
    recordings.session_ids_by_name = adapters
    batches = EvaluationBatches(
        recordings, data["batch_size"], run.functional.multiple, data["buckets"]
    )
    return recordings, batches


def _moved(table: str, root: str, data_root: str | Path | None) -> str | Path:
    """The path of the table of corpora: one that was in the data's folder has moved with it."""
    among = table and Path(table).is_relative_to(root)
    return Path(data_root) / Path(table).relative_to(root) if data_root and among else table
