"""A working directory belongs to one config and one data set."""

import json
from pathlib import Path
from typing import Any

from modessm_jax.runs.checkpoints import CheckpointError
from modessm_jax.runtime.metric_writer import write_json

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


def claim(
    workdir: Path, config: dict[str, Any], dataset: dict[str, Any], *, resuming: bool
) -> None:
    """Writes `config.json` and `dataset.json`, or checks that they are the resumed run's.

    Args:
      workdir: of the run.
      config: as plain JSON values.
      dataset: what identifies the data, as plain JSON values.
      resuming: whether the directory holds a checkpoint; without one there is nothing to protect.

    Raises:
      CheckpointError: they differ from the saved ones in a key that changes the result.
    """
    present = {"config": config, "dataset": dataset}
    paths = {name: workdir / f"{name}.json" for name in present}
    if resuming:
        for path in paths.values():
            if not path.exists():
                raise CheckpointError(f"{path} is missing beside checkpoints; choose a new workdir")
        saved = {n: json.loads(path.read_text(encoding="utf-8")) for n, path in paths.items()}
        then = _flat(saved["config"]) | _flat(saved["dataset"], "dataset.")
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
    for name, path in paths.items():
        write_json(path, present[name])


def _flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(tree, dict) or not tree:
        return {prefix.removesuffix("."): tree}
    return {
        key: value
        for name, branch in tree.items()
        for key, value in _flat(branch, f"{prefix}{name}.").items()
    }
