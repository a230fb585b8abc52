"""A run directory belongs to one config and one data set, and has a format number."""

import json
from pathlib import Path
from typing import Any

from flax.traverse_util import flatten_dict

from modessm_jax.runs.checkpoint_files import CheckpointError, damaged_in, steps_in
from modessm_jax.runtime.files import write_json

# Format of what this code writes, in `format.json`. Format 1 has no such file, and calls rollbacks
# setbacks, which `History.from_json` and `MetricWriter` read. Format 3 has rules that change the
# numbers of training: see `keeps_former_rules`. Since format 4 the model's sessions are those with
# training trials, and `folders` in `dataset.json` are all sessions that were there.
FORMAT = 4

# Keys that may differ when a run is resumed, because neither the parameters nor the choice of the
# best model depend on them (on `model.remat` only by rounding); of `data.root` and `data.lexicon`,
# the data found there are compared. `eval_every` is not among them: it decides which models are
# candidates for the best. Nor is `steps`, which shapes the learning rate from the first update on.
FREE_KEYS = frozenset(
    {
        "data.lexicon",
        "data.memory_gib",
        "data.root",
        "data.table",
        "data.workers",
        "guard.tries",
        "model.remat",
        "training.keep",
        "training.log_every",
        "training.save_every",
    }
)

# Keys that configs did not always have, and what runs without them did.
ADDED_KEYS: dict[str, dict[str, Any]] = {
    "data": {
        "exclude": [],
        "channels": "",
        "untrained_sessions": "refuse",
        "normalize": "as_stored",
        "normalize_window": 60.0,
        "normalize_log": "",
    },
    "init": {"run": "", "skip": [], "sessions": "nearest"},
    "model": {"remat": "none"},
    "optimizer": {"session_rate": 1.0, "decay_sessions": True},
}
ADDED_KEYS_OF_MODELS: dict[str, dict[str, Any]] = {"modessm": {"lookahead": 0}}


def check_format(workdir: Path) -> None:
    """Checks that this code can read a run directory.

    Raises:
      CheckpointError: a later version of the code wrote it.
    """
    found = _read_format(workdir)["format"]
    if found > FORMAT:
        raise CheckpointError(
            f"{workdir} has format {found}, and this version of modessm_jax reads formats up to "
            f"{FORMAT}. Use the version that made the run, or a later one"
        )


def keeps_former_rules(workdir: Path) -> bool:
    """Whether the run in a directory was begun in format 1 or 2, and so ends as it would have.

    Since format 3 each purpose draws from a random key of its own (`runtime.keys`), labels are
    padded by bucket (`data.batches.label_widths`), the objective "mode" is a mean over trials
    (`losses.cost.total`), and a repeated trial is one witness of its block's mode (`losses.mode`).
    """
    return _format_begun_in(workdir) < 3


def _format_begun_in(workdir: Path) -> int:
    """The format that the run in a directory was begun in: this one, if it has yet to begin."""
    found = _read_format(workdir)
    return found.get("begun", found["format"])


def _read_format(workdir: Path) -> dict[str, int]:
    path = workdir / "format.json"
    if path.exists():
        return json.loads(path.read_text(encoding="utf-8"))
    return {"format": 1 if (workdir / "config.json").exists() else FORMAT}


def read_identity(workdir: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The config of a run, and the description of its data.

    Raises:
      CheckpointError: the directory is not that of a run, or a later version of the code wrote it.
    """
    check_format(workdir)
    paths = [workdir / name for name in ("config.json", "dataset.json")]
    for path in paths:
        if not path.exists():
            raise CheckpointError(f"{path} is missing; give the workdir of a training run")
    config, dataset = (json.loads(path.read_text(encoding="utf-8")) for path in paths)
    return config, dataset


def read_begun(workdir: Path) -> dict[str, Any] | None:
    """The description of the data of a run that has a checkpoint; None of one that is to begin."""
    folder = workdir / "checkpoints"
    if not folder.is_dir() or not (steps_in(folder) or damaged_in(folder)):
        return None
    return read_identity(workdir)[1]


def check_identity(
    workdir: Path, config: dict[str, Any], dataset: dict[str, Any], *, resuming: bool
) -> None:
    """Writes `config.json`, `dataset.json` and `format.json`; of a resumed run, checks them first.

    Args:
      workdir: of the run.
      config: as plain JSON values.
      dataset: what identifies the data, as plain JSON values.
      resuming: whether the directory holds a checkpoint; without one the files may be replaced.

    Raises:
      CheckpointError: they differ from the saved ones in a key that changes the result; or a later
        version of the code wrote the directory.
    """
    check_format(workdir)
    if resuming:
        saved_config, saved_dataset = read_identity(workdir)
        then = _flat({**with_added_keys(saved_config), "dataset": saved_dataset})
        now = _flat({**with_added_keys(config), "dataset": dataset})
        lines = [
            f"  {key}: {then.get(key, 'absent')!r} then, {now.get(key, 'absent')!r} now"
            for key in sorted((then.keys() | now.keys()) - FREE_KEYS)
            if then.get(key, "absent") != now.get(key, "absent")
        ]
        if lines:
            raise CheckpointError(
                f"{workdir} holds a run of another config or data set; resume it with its own or "
                "choose a new workdir. To go on from its best model with another, begin a new run "
                f"with --config.init.run={workdir}. They differ in\n" + "\n".join(lines)
            )
    versions = {"format": FORMAT, "begun": _format_begun_in(workdir)}
    written = {"format": versions, "config": config, "dataset": dataset}
    for name, value in written.items():
        write_json(workdir / f"{name}.json", value)


def with_added_keys(config: dict[str, Any]) -> dict[str, Any]:
    """A config with the keys that were added since it was written."""
    of_model = ADDED_KEYS_OF_MODELS.get(config.get("model", {}).get("name"), {})
    added = ADDED_KEYS | {"model": ADDED_KEYS["model"] | of_model}
    return {**config, **{part: keys | config.get(part, {}) for part, keys in added.items()}}


def _flat(tree: dict[str, Any]) -> dict[str, Any]:
    return flatten_dict(tree, keep_empty_nodes=True, sep=".")
