"""Independent random numbers for every part of a simulated data set."""

from enum import IntEnum

import numpy as np


class Stream(IntEnum):
    """What a generator is for, so that no two purposes share random numbers."""

    SENTENCES = 0
    CALENDAR = 1
    IMPLANT = 2
    DRIFT = 3
    MODES = 4
    BLOCK = 5
    TRIAL = 6


def generator(seed: int, stream: Stream, *indices: int) -> np.random.Generator:
    """The generator of one stream; `indices` are its session, block and trial as far as it has."""
    return np.random.default_rng([seed, stream, *indices])
