"""The stages of a run: what trains in each, on which objectives, how fast and for how long."""

import dataclasses
import fnmatch
import math
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import jax
import optax

from modessm_jax.runs.state import by_path
from modessm_jax.training.optimizer import make_optimizer, make_schedule

RATES = ("peak_lr", "end_lr", "warmup_steps")
ONLY = "main"  # the name of the stage of a run that has one


@dataclasses.dataclass(frozen=True)
class Stage:
    """One of `config.stages`, each of which begins with the state that the one before left."""

    name: str
    steps: int  # at most
    weights: Mapping[str, float]  # of the objectives
    peak_lr: float
    end_lr: float
    warmup_steps: int
    trains: tuple[str, ...] = ("*",)  # globs over the paths of the parameters that may change
    freezes: tuple[str, ...] = ()  # and of those among them that stay as they are
    select_by: str = "per"  # error rate; the model with the lowest is the best
    patience: int = 0  # evaluations without a better one that end it; 0: all steps

    def __post_init__(self):
        if "+" in self.name:  # see `groups`
            raise ValueError(f"stage {self.name}: a stage's name cannot hold a '+'; rename it")
        for objective, weight in self.weights.items():
            if not (math.isfinite(weight) and weight >= 0.0):
                raise ValueError(
                    f"stage {self.name}: the weight of {objective} is {weight}; an objective is "
                    "minimised, so give 0 or more"
                )
        if self.steps < 1 or self.patience < 0:
            raise ValueError(
                f"stage {self.name} has steps = {self.steps} and patience = {self.patience}; "
                "need at least 1 and 0"
            )


def read_stages(config: Mapping[str, Any]) -> tuple[Stage, ...]:
    """The stages of a config in their order.

    With `config.stages` those that `stages.order` names: each has its own `steps`, `select_by`,
    `weights` and learning rate. Without, one stage of `training.steps`, `training.select_by`,
    `objective.weights` and the learning rate in `optimizer`.

    Raises:
      ValueError: a stage is missing, unknown, empty or given twice over; the message names the key.
    """
    if "stages" not in config:
        rates = {key: config["optimizer"][key] for key in RATES}
        weights, training = config["objective"]["weights"], config["training"]
        steps, select_by = training["steps"], training["select_by"]
        return (Stage(ONLY, steps, weights, **rates, select_by=select_by),)
    doubled = [
        f"{part}.{key}"
        for part, keys in (
            ("training", ("steps", "select_by")),
            ("objective", ("weights",)),
            ("optimizer", RATES),
        )
        for key in keys
        if key in config[part]
    ]
    if doubled:
        raise ValueError(f"{', '.join(doubled)}: with stages, each stage has its own; drop these")
    stages = dict(config["stages"])
    order = tuple(stages.pop("order"))
    if not order or len(set(order)) < len(order) or not set(order) <= set(stages):
        raise ValueError(
            f"stages.order is {order}; name some of {sorted(stages)}, each at most once"
        )
    return tuple(_read_stage(name, stages[name]) for name in order)


def _read_stage(name: str, options: Mapping[str, Any]) -> Stage:
    try:
        return Stage(name, **{key: _as_tuple(value) for key, value in options.items()})
    except TypeError as error:
        raise ValueError(f"config.stages.{name}: {error}") from error


class StagePlan(NamedTuple):
    """A stage made ready for a model."""

    stage: Stage
    optimizer: optax.GradientTransformation  # at a learning rate of 1
    schedule: optax.Schedule  # learning rate, from the updates made in this stage
    trained: Any  # tree of bool like the parameters


def plan_stages(config: Mapping[str, Any], params: Any) -> tuple[StagePlan, ...]:
    """The stages of a config for a model with these parameters.

    The optimiser's state has one structure in all of them.

    Raises:
      ValueError: a stage does not fit the model, or its numbers describe no schedule.
    """
    stages = read_stages(config)
    common = {k: v for k, v in config["optimizer"].items() if k not in RATES}
    sorted_by_stage = groups(params, stages)
    plans = []
    for stage in stages:
        names = {name for name in jax.tree.leaves(sorted_by_stage) if stage.name in name.split("+")}
        optimizer = make_optimizer(**common, groups=sorted_by_stage, active=names)
        rates = {key: getattr(stage, key) for key in RATES}
        try:
            schedule = make_schedule(**rates, steps=stage.steps)
        except ValueError as error:
            raise ValueError(f"stage {stage.name}: {error}") from error
        plans.append(StagePlan(stage, optimizer, schedule, trained(params, stage)))
    return tuple(plans)


def trained(params: Any, stage: Stage) -> Any:
    """Marks the parameters that a stage trains: a tree of True and False.

    Raises:
      ValueError: a pattern matches no parameter.
    """
    found = dict.fromkeys(by_path(params), False)
    for key, trains in (("trains", True), ("freezes", False)):
        for pattern in getattr(stage, key):
            matching = fnmatch.filter(found, pattern)
            if not matching:
                tops = sorted({name.split("/")[0] for name in found})
                raise ValueError(
                    f"stages.{stage.name}.{key}: {pattern!r} matches no parameter; the model has "
                    f"{', '.join(f'{top}/*' for top in tops)}"
                )
            found |= dict.fromkeys(matching, trains)
    return jax.tree.unflatten(jax.tree.structure(params), list(found.values()))


def groups(params: Any, stages: Collection[Stage]) -> Any:
    """Sorts the parameters by the stages that train them: a tree of names such as "warmup+joint".

    Parameters of one group have made the same updates at any time, so they can share an optimiser's
    state. Those that no stage trains are in the group "".
    """
    marks = [trained(params, stage) for stage in stages]

    def name(*trains: bool) -> str:
        return "+".join(s.name for s, yes in zip(stages, trains, strict=True) if yes)

    return jax.tree.map(name, *marks)


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
