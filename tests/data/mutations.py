"""Ways in which a file of the T15 layout comes to be malformed, and what must become of each.

They spoil one trial of a valid file, or the file. Changes that leave a valid file with another
meaning (a label 7 that becomes an 8) are beyond any reader, and are not here.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

REFUSED = "refused"  # by an error that names the place and the field
EXCLUDED = "excluded"  # from training, by name; validation data keep the trial
REPAIRED = "repaired"  # non-finite values read as 0, and the trial is named
HARMLESS = "harmless"  # no meaning is changed, and the same trial is read

FEATURES, IDS = "input_features", "seq_class_ids"

Spoil = Callable[[Any, np.random.Generator], object]


@dataclass(frozen=True)
class Mutation:
    """One way to be malformed.

    Attributes:
        spoil: changes the group of a trial; of `whole_file`, a `Target`.
        field: what a refusal must name.
        outcome: what must become of the trial.
        place: the group that a refusal must name; empty for the file alone.
        reread: whether the features must be refused if the file is spoilt after the list of trials
            was read; otherwise they must be what they were, or repaired.
    """

    name: str
    spoil: Spoil
    field: str
    outcome: str
    place: str
    reread: bool
    whole_file: bool

    def apply(self, file: Path, trial: str, random: np.random.Generator) -> None:
        """Spoils a trial of a file, or the file."""
        if self.whole_file:
            self.spoil(Target(file, trial), random)
            return
        with h5py.File(file, "a") as handle:
            self.spoil(handle[trial], random)

    def refusal(self, file: Path, trial: str) -> str:
        """How the message of a refusal must begin."""
        place = self.place.format(trial=trial)
        return ", ".join(part for part in (str(file), place, self.field) if part) + ": "


@dataclass(frozen=True)
class Target:
    """What is spoilt."""

    file: Path
    trial: str


def collector(mutations: list[Mutation]) -> Callable[..., Callable[[Spoil], Spoil]]:
    """Gives a decorator that adds what it decorates to the list; it is named for the function."""

    def mutation(
        field: str,
        outcome: str = REFUSED,
        *,
        name: str = "",
        place: str = "{trial}",
        reread: bool | None = None,
        whole_file: bool = False,
    ) -> Callable[[Spoil], Spoil]:
        if reread is None:
            reread = outcome == REFUSED and (whole_file or field == FEATURES)

        def keep(spoil: Spoil) -> Spoil:
            known = name or spoil.__name__.replace("_", " ")
            added = Mutation(known, spoil, field, outcome, place, reread, whole_file)
            mutations.append(added)
            return spoil

        return keep

    return mutation


def replace(group: h5py.Group, field: str, **options: Any) -> None:
    """Puts another dataset in the place of one."""
    del group[field]
    group.create_dataset(field, **options)


def values(group: h5py.Group, field: str) -> np.ndarray:
    """Those of a dataset, padding included."""
    stored = group[field]
    assert isinstance(stored, h5py.Dataset)
    return stored[:]


def number(group: h5py.Group, field: str) -> int:
    """That of an attribute."""
    return int(np.asarray(group.attrs[field]).item())
