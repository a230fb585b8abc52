"""What a run directory belongs to: one config and one data set, in one format."""

import json
from pathlib import Path
from typing import Any

from modessm_jax.runs.checkpoints import CheckpointError
from modessm_jax.runtime.files import write_json

# Of a run directory, in `format.json`. Format 1 had no such file, and called rollbacks setbacks.
FORMAT = 2

# Keys that may differ between a run and its resumption, because neither the parameters nor the
# choice of the best depend on them; of `data.root` and `data.lexicon`, what lies there is compared.
# `eval_every` is not among them: it decides which models are candidates for the best. Nor is
# `steps`, which shapes the learning rate from the first update on.
FREE_KEYS = frozenset(
    {
        "data.lexicon",
        "data.memory_gib",
        "data.root",
        "data.table",
        "data.workers",
        "guard.tries",
        "training.keep",
        "training.log_every",
        "training.save_every",
    }
)


def read_identity(workdir: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The config and the description of the data that a run was made with.

    Raises:
      CheckpointError: the directory is not that of a run, or a later version wrote it.
    """
    path = workdir / "format.json"
    found = json.loads(path.read_text(encoding="utf-8"))["format"] if path.exists() else 1
    if found > FORMAT:
        raise CheckpointError(
            f"{workdir} has format {found}, and this version of modessm_jax reads formats up to "
            f"{FORMAT}. Use the version that made the run, or a later one"
        )
    paths = [workdir / name for name in ("config.json", "dataset.json")]
    for path in paths:
        if not path.exists():
            raise CheckpointError(f"{path} is missing; give the workdir of a training run")
    config, dataset = (json.loads(path.read_text(encoding="utf-8")) for path in paths)
    return config, dataset


def check_identity(
    workdir: Path, config: dict[str, Any], dataset: dict[str, Any], *, resuming: bool
) -> None:
    """Writes `config.json`, `dataset.json` and `format.json`; of a resumed run, checks them first.

    Args:
      workdir: of the run.
      config: as plain JSON values.
      dataset: what identifies the data, as plain JSON values.
      resuming: whether the directory holds a checkpoint; without one there is nothing to protect.

    Raises:
      CheckpointError: they differ from the saved ones in a key that changes the result.
    """
    if resuming:
        saved_config, saved_dataset = read_identity(workdir)
        then = _flat(saved_config) | _flat(saved_dataset, "dataset.")
        now = _flat(config) | _flat(dataset, "dataset.")
        lines = [
            f"  {key}: {then.get(key, 'absent')!r} then, {now.get(key, 'absent')!r} now"
            for key in sorted((then.keys() | now.keys()) - FREE_KEYS)
            if then.get(key, "absent") != now.get(key, "absent")
        ]
        if lines:
            raise CheckpointError(
                f"{workdir} holds a run of another config or data set; resume it with its own or "
                "choose a new workdir. They differ in\n" + "\n".join(lines)
            )
    written = {"format": {"format": FORMAT}, "config": config, "dataset": dataset}
    for name, value in written.items():
        write_json(workdir / f"{name}.json", value)


def _flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(tree, dict) or not tree:
        return {prefix.removesuffix("."): tree}
    return {
        key: value
        for name, branch in tree.items()
        for key, value in _flat(branch, f"{prefix}{name}.").items()
    }
