"""Recalibration with a few labelled trials: the config of a run that goes on with them."""

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from modessm_jax.data.hdf5 import Trial
from modessm_jax.runs.sessions import LAYERS, NEAREST

# The parameters that read features, beside the adapters, by model.
_FRONT_ENDS = {
    "gru": ("gru/initial", "gru/layers/0/*"),
    "transformer": ("patch_norm/*", "embed/*", "embed_norm/*"),
    "conformer": ("lower/blocks/0/*",),
    "multiscale": ("fast/blocks/0/*", "medium_lower/blocks/0/*", "slow/blocks/0/*"),
    "modessm": ("gate/*", "stem/*", "patch/*"),
}
STEPS = 60  # updates, by default
_BATCH = 16  # trials of an update, at most
_SESSIONS_PER_BATCH = 4  # of a replay


class Recipe(NamedTuple):
    """What is trained, and how fast."""

    peak_lr: float
    replay: bool  # whether the sessions trained on are trained on again


ADAPTER, FRONT_END, ALL = "adapter", "front_end", "all"
RECIPES = {
    ADAPTER: Recipe(3e-3, replay=False),
    FRONT_END: Recipe(1e-3, replay=False),
    ALL: Recipe(5e-4, replay=True),
}


def trained_by(recipe: str, model: Mapping[str, Any]) -> tuple[str, ...]:
    """Globs over the paths of the parameters that a recipe trains.

    Args:
        recipe: one of `RECIPES`.
        model: of a config.

    Raises:
        ValueError: the model has no adapters.
    """
    adapters = () if model.get("session") in (None, "none") else (f"{LAYERS}/*",)
    if recipe == ALL:
        return ("*",)
    if recipe == ADAPTER and not adapters:
        raise ValueError(
            "this model has no adapters of sessions (model.session is 'none'): choose the recipe "
            "front_end or all"
        )
    return adapters + (_FRONT_ENDS[model["name"]] if recipe == FRONT_END else ())


def recalibration(
    config: Mapping[str, Any],
    workdir: Path,
    *,
    root: Path,
    session: str,
    replayed: Sequence[str],
    unused: Sequence[Trial],
    recipe: str,
    steps: int,
    batch_size: int,
) -> ConfigDict:
    """The config of a run that recalibrates another for one session.

    Augmentation, objectives and model are those of the other run. Nothing is chosen by the error
    rate on val: the last step's model is the result.

    Args:
        config: of the other run.
        workdir: of the other run.
        root: of the recordings.
        session: to recalibrate for.
        replayed: other sessions to train on, if the recipe replays.
        unused: trials of the session that are not to be trained on.
        recipe: one of `RECIPES`.
        steps: updates.
        batch_size: trials of the session; a batch is no larger.

    Raises:
        ValueError: the model has no adapters.
    """
    made = copy.deepcopy(dict(config))
    trains = trained_by(recipe, made["model"])
    objective = _objective(made)
    peak_lr, replay = RECIPES[recipe]
    sessions = (session, *replayed) if replay else (session,)
    batch = _BATCH if replay else min(_BATCH, batch_size)
    per_batch = max(n for n in range(1, _SESSIONS_PER_BATCH + 1) if n <= len(sessions))
    made["data"] |= {
        "root": str(root),
        "sessions": sessions,
        "exclude": tuple(f"{t.session}/{t.block}/{t.number}" for t in unused),
        "batch_size": batch,
        "buckets": 1,
        "sessions_per_batch": 0 if len(sessions) == 1 or batch % per_batch else per_batch,
    }
    made["init"] = {"run": str(workdir), "skip": (), "sessions": NEAREST}
    for part, key in (
        *(("training", key) for key in ("steps", "select_by")),
        *(("optimizer", key) for key in ("peak_lr", "end_lr", "warmup_steps")),
        ("objective", "weights"),
    ):
        made[part].pop(key, None)
    # Decay would change the adapters of all sessions, also of those that are not trained on.
    made["optimizer"] |= {"eps": 1e-8, "session_rate": 1.0, "decay_sessions": False}
    made["training"] |= {"eval_every": steps, "save_every": steps, "keep": 1, "ema_decay": 0.0}
    made["stages"] = {
        "order": ("recalibration",),
        "recalibration": {
            **objective,
            "steps": steps,
            "peak_lr": peak_lr,
            "end_lr": peak_lr / 10,
            "warmup_steps": steps // 10,
            "trains": trains,
        },
    }
    return ConfigDict(made)


def _objective(config: Mapping[str, Any]) -> dict[str, Any]:
    """The objectives of the run: those of its last stage, the flow bridge's left out."""
    if "stages" not in config:
        select_by = config["training"]["select_by"]
        return {"weights": config["objective"]["weights"], "select_by": select_by}
    stages = [config["stages"][name] for name in config["stages"]["order"]]
    last = [stage for stage in stages if not stage["weights"].get("flow")][-1]
    return {key: last[key] for key in ("weights", "select_by", "freezes")}
