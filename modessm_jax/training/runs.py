"""What a working directory holds, and how to get the trained model back out of it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from modessm_jax.data.pipeline import evaluation_batches
from modessm_jax.data.trials import Recordings, read_recordings
from modessm_jax.data.validation import DataError
from modessm_jax.models.build import Functional, build
from modessm_jax.training.checkpoints import CheckpointError, load_weights
from modessm_jax.training.evaluation import evaluate, make_scorer
from modessm_jax.training.mesh import data_mesh
from modessm_jax.training.results import Evaluation
from modessm_jax.training.writers import write_json


class Run(NamedTuple):
    """A trained model, with what it was trained on."""

    config: dict[str, Any]
    sessions: tuple[str, ...]  # the meaning of the model's session ids
    channels: int
    functional: Functional  # its params are the initial ones
    params: Any  # the best evaluation's
    step: int  # updates made to them


def build_model(config: Mapping[str, Any], channels: int, sessions: int) -> Functional:
    """The model of a whole config, for data of so many channels and sessions."""
    return build(
        config["model"],
        channels=channels,
        sessions=sessions,
        hides_bins=config["augment"].get("time_masks", 0) > 0,
        seed=config["training"]["seed"],
    )


def write_dataset(workdir: Path, recordings: Recordings, root: str | Path) -> None:
    """Writes `dataset.json`: where the data were, their channels, and the order of sessions."""
    facts = {
        "root": str(root),
        "sessions": list(recordings.sessions),
        "channels": recordings.channels,
    }
    write_json(Path(workdir) / "dataset.json", facts)


def load_run(workdir: str | Path) -> Run:
    """Loads the best model of a run.

    Raises:
        CheckpointError: the directory holds no trained model, or one that cannot be read.
    """
    workdir = Path(workdir)
    config, dataset = (_read(workdir / name) for name in ("config.json", "dataset.json"))
    sessions, channels = tuple(dataset["sessions"]), dataset["channels"]
    functional = build_model(config, channels, len(sessions))
    weights = load_weights(workdir / "best", functional.params)
    return Run(config, sessions, channels, functional, weights.evaluation_params, weights.step)


def evaluate_run(run: Run, split: str, data_root: str | Path | None = None) -> Evaluation:
    """Scores a run's best model on a split of the data it was trained on, or of others like them.

    Args:
        run: from `load_run`.
        split: "train", "val" or "test".
        data_root: where the data are, if not where they were in training.

    Raises:
        DataError: the data are missing or unfit, or have a session the model was not trained on.
    """
    data = run.config["data"]
    recordings = read_recordings(
        data_root or data["root"],
        split,
        sessions=None if data_root else data["sessions"],
        table=data["table"],
        memory_gib=data["memory_gib"],
        expect_channels=run.channels,
    )
    unknown = sorted({trial.session for trial in recordings.trials} - set(run.sessions))
    if unknown:
        raise DataError(
            f"the model was not trained on the sessions {', '.join(unknown)}; it knows "
            f"{', '.join(run.sessions)}. Give a root of these sessions, or train on the new ones."
        )
    # Ids follow the folders under the root, which may have changed since training.
    recordings.sessions = run.sessions
    batches = evaluation_batches(
        recordings, data["batch_size"], run.functional.multiple, data["buckets"]
    )
    return evaluate(
        make_scorer(run.functional.apply, data_mesh()),
        run.params,
        batches,
        recordings,
        normalize_by=run.config["objective"]["normalize_by"],
    )


def _read(path: Path) -> dict[str, Any]:
    if not path.exists():
        raise CheckpointError(f"{path} is missing; give the workdir of a training run")
    return json.loads(path.read_text(encoding="utf-8"))
