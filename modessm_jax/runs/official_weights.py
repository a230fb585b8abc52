"""Weights of the field's models, by their authors' names, as parameters of the models here.

`nejm`: `GRUDecoder` of Neuroprosthetics-Lab/nejm-brain-to-text. Linear weights are stored output
first there and input first here; a session's matrix is stored whole there and as its difference
from the identity here.
"""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

Weights = Mapping[str, np.ndarray]


class WeightsError(ValueError):
    """Weights that are not those of the model they are read for."""


class _Reader:
    """Takes arrays by name, and knows which were not taken."""

    def __init__(self, weights: Weights):
        self._weights, self._left = weights, set(weights)

    def take(self, name: str) -> np.ndarray:
        if name not in self._weights:
            raise WeightsError(f"the weights have no {name!r}, but {', '.join(self._weights)}")
        self._left.discard(name)
        return np.asarray(self._weights[name], np.float32)

    def linear(self, name: str) -> dict[str, np.ndarray]:
        return {"kernel": self.take(f"{name}.weight").T, "bias": self.take(f"{name}.bias")}

    def numbered(self, pattern: str) -> int:
        """How many names there are of a pattern with a number, counted from 0."""
        found = (re.fullmatch(pattern, name) for name in self._weights)
        return 1 + max((int(match[1]) for match in found if match), default=-1)

    def finish(self) -> None:
        if self._left:
            raise WeightsError(
                f"the model has no use for the weights {', '.join(sorted(self._left))}"
            )


def nejm(weights: Weights) -> dict[str, Any]:
    """The parameters of `models.gru.GRUDecoder`.

    Args:
        weights: the state of its authors' model; `day_weights.N`, `gru.weight_ih_lN`, ...

    Raises:
        WeightsError: a name is missing, or one is not known.
    """
    reader = _Reader(weights)
    days = range(reader.numbered(r"day_weights\.(\d+)"))
    matrices = np.stack([reader.take(f"day_weights.{day}") for day in days])
    offsets = np.stack([reader.take(f"day_biases.{day}").reshape(-1) for day in days])
    layers = {}
    for layer in range(reader.numbered(r"gru\.weight_ih_l(\d+)")):
        kernel, bias = (reader.take(f"gru.{part}_ih_l{layer}") for part in ("weight", "bias"))
        direction = {
            "input": {"kernel": kernel.T, "bias": bias},
            "recurrent": reader.take(f"gru.weight_hh_l{layer}").T,
            "recurrent_bias": reader.take(f"gru.bias_hh_l{layer}"),
        }
        layers[layer] = {0: direction}
    params = {
        "adaptation": {
            "weight": matrices - np.eye(matrices.shape[-1], dtype=np.float32),
            "offset": offsets,
        },
        "gru": {"initial": reader.take("h0").reshape(-1), "layers": layers},
        "head": reader.linear("out"),
    }
    reader.finish()
    return params
