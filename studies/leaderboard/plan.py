"""What a leaderboard trains: recipes on data sets, with steps that take the seconds allowed."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from absl import flags
from ml_collections import config_flags

from modessm_jax.data.roots import no_recordings, session_names
from modessm_jax.training.stages import ONLY, read_stages

EVALUATIONS = 8  # of a run whose steps are chosen for it
# Steps of a probe: at least so many, and so many of its shortest stage.
_PROBE, _PROBE_OF_STAGE = 48, 4


@dataclass(frozen=True, eq=False)
class Entry:
    """A recipe on the board.

    Attributes:
        name: as it was given, or the one given to it.
        arguments: of `experiments.train`, that choose it.
        config: the recipe's, plain values.
    """

    name: str
    arguments: tuple[str, ...]
    config: Mapping[str, Any]

    @property
    def folder(self) -> str:
        """The name of its folder."""
        return re.sub(r"[^\w.,=()-]+", "-", self.name)


class Plan(NamedTuple):
    """What is asked of the board; see `python -m studies.leaderboard --help`."""

    work: Path
    entries: tuple[Entry, ...]
    data: tuple[Path, ...]
    seeds: tuple[int, ...]
    seconds: float | None  # of the training steps of each run; None for each recipe's own steps
    clock: str  # whose seconds: "cpu" or "wall"
    test: bool  # whether the test split is decoded


def read_entry(text: str, further: Sequence[str] = ()) -> Entry:
    """Reads a recipe: `gru:small`, or `"causal=multiscale:small model.causal=True"`.

    Args:
        text: a name and "=", or neither; the config, a file or the name of one in `configs/`, its
            variant after a colon; then keys that it changes, and their values.
        further: arguments of `experiments.train` for every recipe.

    Raises:
        ValueError: there is no such config, variant or key, or a value is unfit.
    """
    place, *changes = text.split() or [""]
    name, _, place = place.rpartition("=")
    file, colon, variant = place.partition(":")
    file = file if file.endswith(".py") else f"configs/{file}.py"
    changed = [f"--config.{change}" for change in changes]
    arguments = (f"--config={file}{colon}{variant}", *changed, *further)
    # Read as `experiments.train` will, from a command line of its own.
    values, line = flags.FlagValues(), ["", *arguments]
    config_flags.DEFINE_config_file("config", None, flag_values=values, sys_argv=line)
    try:
        left = values(line)[1:]
        config = values.config.to_dict()
    except AttributeError as error:  # a key that the config does not have
        problem = str(error.args[0].args[0]).replace("\n", ". ")
        raise ValueError(f"{text}: the config has no key {problem}") from error
    except (flags.Error, OSError) as error:
        raise ValueError(f"{text}: {str(error).strip().splitlines()[-1].strip()}") from error
    if left:
        raise ValueError(f"{text}: write changed keys as KEY=VALUE, not {' '.join(left)}")
    read_stages(config)
    return Entry(name or text, arguments, config)


def check_data(root: Path, splits: Sequence[str]) -> None:
    """Checks that a data set has these splits.

    Raises:
        DataError: there are no recordings, or none of a split.
    """
    session_names(root)
    for split in splits:
        if not any(root.glob(f"*/data_{split}.hdf5")):
            raise no_recordings(root, split)


def steps_of(config: Mapping[str, Any]) -> int:
    """The steps of a recipe, of all its stages together."""
    return sum(stage.steps for stage in read_stages(config))


def probe(config: Mapping[str, Any]) -> dict[str, int]:
    """The keys that make a recipe so short that its seconds per step are soon known."""
    stages = read_stages(config)
    shortest = min(stage.steps for stage in stages)
    return scaled(config, max(_PROBE / steps_of(config), _PROBE_OF_STAGE / shortest), 1)


def steps_within(
    config: Mapping[str, Any], seconds: float, seconds_per_step: float
) -> dict[str, int]:
    """The keys that give a recipe as many steps as take these seconds."""
    factor = seconds / (seconds_per_step * steps_of(config))
    return scaled(config, factor, EVALUATIONS)


def scaled(config: Mapping[str, Any], factor: float, evaluations: int) -> dict[str, int]:
    """The keys that change with a recipe's number of steps, and their values.

    Every stage and its warm-up are made longer by the same factor. The run is evaluated and saved
    so many times, besides at the end of each stage.
    """
    found: dict[str, int] = {}
    total = 0
    for stage in read_stages(config):
        steps = max(2, round(factor * stage.steps))
        warmup = round(stage.warmup_steps * steps / stage.steps)
        alone = stage.name == ONLY
        place = f"stages.{stage.name}"
        found["training.steps" if alone else f"{place}.steps"] = steps
        # A schedule has a step after its warm-up, and one after that.
        place = "optimizer" if alone else place
        found[f"{place}.warmup_steps"] = min(warmup, steps - 2)
        total += steps
    every = max(1, -(-total // evaluations))
    return {**found, "training.eval_every": every, "training.save_every": every}
