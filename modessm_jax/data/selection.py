"""Trials and channels that a config leaves out: `data.exclude` and `data.channels`."""

import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from jaxtyping import Int

from modessm_jax.data.hdf5 import Trial
from modessm_jax.data.validation import DataError

_NAME = re.compile(r"(?P<session>[^/]+)/(?:block )?(?P<block>\d+)(?:/(?:trial )?(?P<trial>\d+))?")
_RANGE = re.compile(r"\s*(\d+)\s*(?:-\s*(\d+)\s*)?")


def read_exclusions(given: Iterable[str]) -> tuple[str, ...]:
    """The names in `data.exclude`, each once and in order, as SESSION/BLOCK[/TRIAL].

    Args:
        given: names; or text files of them (`*.txt`, a name a line, `#` before a comment). Names as
            messages show them (SESSION/block 1/trial 2) are taken too.

    Raises:
        DataError: a name is of another form, or a file cannot be read.
    """
    names: set[str] = set()
    for one in given:
        lines = [one]
        if one.endswith(".txt"):
            try:
                lines = Path(one).read_text(encoding="utf-8").splitlines()
            except (OSError, UnicodeDecodeError) as error:
                raise DataError(f"data.exclude: {one} cannot be read ({error}).") from error
        for line in lines:
            name = line.partition("#")[0].strip()
            found = _NAME.fullmatch(name)
            if found is not None:
                numbers = [str(int(n)) for n in found.group("block", "trial") if n is not None]
                names.add("/".join([found["session"], *numbers]))
            elif name or lines == [one]:
                raise DataError(
                    f"data.exclude: {name!r} is no trial. Give SESSION/BLOCK/TRIAL, or "
                    "SESSION/BLOCK for all trials of a block, or a .txt file of such lines."
                )
    return tuple(sorted(names))


def name_excluding(trial: Trial, names: Iterable[str]) -> str | None:
    """The name, from `read_exclusions`, that leaves a trial out; None if it stays."""
    block = f"{trial.session}/{trial.block}"
    return next((name for name in (f"{block}/{trial.number}", block) if name in names), None)


def parse_channels(text: str, key: str = "data.channels") -> Int[np.ndarray, "channels"] | None:
    """The channels in a key of the config ("0-63, 128-255"), from 0 on; None if it is empty.

    Raises:
        DataError: it is no list of numbers and ranges that grow.
    """
    channels: list[int] = []
    for part in text.split(",") if text.strip() else ():
        found = _RANGE.fullmatch(part)
        first, last = (int(found[1]), int(found[2] or found[1])) if found else (0, -1)
        if first > last or (channels and first <= channels[-1]):
            raise DataError(
                f"{key} is {text!r}; give the channels in use as numbers and ranges that grow, "
                f"such as 0-63,128-255; empty for {'all' if key == 'data.channels' else 'none'}."
            )
        channels += range(first, last + 1)
    return np.array(channels) if channels else None


def take_channels(
    values: np.ndarray, channels: Int[np.ndarray, "channels"] | None, where: str
) -> np.ndarray:
    """The chosen columns of features [bins, channels]; all if none are chosen.

    Raises:
        DataError: there are too few; the message begins with `where`.
    """
    if channels is None:
        return values
    if channels[-1] >= values.shape[1]:
        raise DataError(
            f"{where}: has {values.shape[1]} channels, numbered from 0, but data.channels names "
            f"{channels[-1]}. Correct data.channels."
        )
    return np.take(values, channels, axis=1)
