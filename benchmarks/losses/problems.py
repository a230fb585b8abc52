"""Random problems: what a loss is given, of a stated size."""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

Kind = str  # "ctc", "rnnt" or "joint"
WIDTH = 512  # features of the encoder and the predictor


class Shape(NamedTuple):
    """Examples, frames, labels and classes."""

    batch: int
    frames: int
    labels: int
    classes: int

    def __str__(self) -> str:
        return f"({', '.join(map(str, self))})"


@dataclass(frozen=True)
class Problem:
    """Arrays of a loss: `values` are what it is differentiated by.

    `values` are the logits (`ctc`: [B, T, V], `rnnt`: [B, T, U + 1, V]), or encoder [B, T, D],
    predictor [B, U + 1, D], kernel [D, V] and bias [V] (`joint`). float32; `ids` int32 [B, U],
    `frames` and `labels` the lengths, int32 [B].
    """

    values: tuple[np.ndarray, ...]
    ids: np.ndarray
    frames: np.ndarray
    labels: np.ndarray

    @property
    def full(self) -> bool:
        """Whether no example is padded."""
        return bool(
            self.frames.min() == self.frames.max() and self.labels.min() == self.ids.shape[1]
        )


def make(kind: Kind, shape: Shape, ragged: bool = False, width: int = WIDTH) -> Problem:
    """A problem of normal logits; all lengths are full, or `ragged` down to about a half."""
    random = np.random.default_rng(0)
    batch, frames, labels, classes = shape

    def normal(*axes: int, scale: float = 1.0) -> np.ndarray:
        values = random.standard_normal(axes, dtype=np.float32)
        return values if scale == 1.0 else values * np.float32(scale)

    if kind == "ctc":
        values = (normal(batch, frames, classes),)
    elif kind == "rnnt":
        values = (normal(batch, frames, labels + 1, classes),)
    else:
        values = (
            normal(batch, frames, width),
            normal(batch, labels + 1, width),
            normal(width, classes, scale=1 / math.sqrt(width)),
            np.zeros(classes, np.float32),
        )
    ids = random.integers(1, classes, (batch, labels)).astype(np.int32)
    shrink = np.linspace(0.5, 1, batch) if ragged else np.ones(batch)
    return Problem(
        values,
        ids,
        np.ceil(frames * shrink).astype(np.int32),
        np.floor(labels * shrink).astype(np.int32),
    )
