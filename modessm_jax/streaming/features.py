"""From bins as they are recorded to the features of a model: its channels, normalised."""

from typing import Any

import numpy as np
from jaxtyping import Float, Float32

from modessm_jax.data.normalization import RunningNormalization, State, read_normalization
from modessm_jax.data.selection import parse_channels, take_channels
from modessm_jax.data.validation import repair
from modessm_jax.runs.identity import with_added_keys


class Features:
    """What a run does to recorded bins before its model.

    Attributes:
        channels: features in a bin that the model uses.
    """

    def __init__(self, config: dict[str, Any], channels: int):
        data = with_added_keys(config)["data"]
        self.channels = channels
        self._chosen = parse_channels(data["channels"])
        self._rule: RunningNormalization | None = read_normalization(data)

    def start(self) -> State | None:
        """The state of the normalisation before the first bin of a session."""
        return None if self._rule is None else self._rule.start(self.channels)

    def take(self, bins: Any, name: str, least: int = 0) -> Float[np.ndarray, "bins channels"]:
        """The channels of the model, of all that are recorded.

        Raises:
            ValueError: the bins have another rank, type or channel count, or are fewer than
                `least`; the message begins with `name`.
        """
        values = np.asarray(bins)
        if values.ndim != 2 or values.dtype.kind != "f" or len(values) < least:
            problem = f"{values.dtype} of shape {values.shape}, not floats [bins, channels]"
            remedy = "give one bin or more, several trials as a list" if least else "give float32"
            raise ValueError(f"{name}: {problem}; {remedy}")
        values = take_channels(values, self._chosen, name)
        if values.shape[1] != self.channels:
            problem = f"{values.shape[1]} channels, but the model was trained on {self.channels}"
            raise ValueError(f"{name}: {problem}; give the same features as in training")
        return values

    def normalize(
        self, state: State | None, values: Float[np.ndarray, "bins channels"], name: str
    ) -> tuple[State | None, Float32[np.ndarray, "bins channels"]]:
        """The next state, and the features; a value that is not finite becomes 0, the mean.

        Raises:
            DataError: see `RunningNormalization`.
        """
        if self._rule is None or state is None:
            return None, repair(values.astype(np.float32))
        return self._rule(state, values, name)
