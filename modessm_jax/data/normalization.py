"""Running normalisation of features, the same for recordings and for bins as they arrive.

Each channel is z-scored by the mean and the deviation of its own past, the present bin included: a
bin that is `window` seconds old counts 1/e of it. T15 was recorded so, with a window of another
shape. What comes next of a session goes on from there, so that a trial begins with the statistics
of the trials before it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Float32, Float64
from scipy.signal import lfilter

from modessm_jax.data.selection import parse_channels
from modessm_jax.data.validation import BIN_SECONDS, DataError

AS_STORED, RUNNING = "as_stored", "running"
LARGEST = 10.0  # deviations; those beyond are clipped, as in T15
# Of the mean: a deviation below is that of a constant channel, up to the rounding of float64.
_CONSTANT = 1e-6

# Sums over the past bins, their weights decaying: of 1, x and x squared.
State = Float64[np.ndarray, "3 channels"]


@dataclass(frozen=True)
class RunningNormalization:
    """Causal z-scores of every channel.

    Attributes:
        window: seconds after which the weight of a bin has fallen to 1/e.
        log: channels, of those recorded, of which log(1 + x) is taken first; None for none.
        chosen: the channels that are given, of those recorded; None for all.
    """

    window: float
    log: np.ndarray | None = None
    chosen: np.ndarray | None = None

    def start(self, channels: int) -> State:
        """The state before the first bin of a session."""
        return np.zeros((3, channels))

    def __call__(
        self, state: State, features: Float[np.ndarray, "bins channels"], where: str
    ) -> tuple[State, Float32[np.ndarray, "bins channels"]]:
        """The state after the next bins, any number of them, and these bins normalised.

        A value that is not finite counts for nothing and becomes 0, the mean. So does a value of a
        channel that has been constant.

        Raises:
            DataError: a value is -1 or less of which a logarithm is to be taken; the message begins
                with `where`.
        """
        known = np.isfinite(features)
        values = np.where(known, features, 0).astype(np.float64)
        values = self._with_logs(values, where)
        bins, channels = values.shape
        if not bins:
            return state, np.zeros((0, channels), np.float32)
        decay = np.exp(-BIN_SECONDS / self.window)
        powers = np.concatenate([known, values, values**2], axis=1, dtype=np.float64)
        past = decay * state.reshape(1, -1)
        sums, _ = lfilter([1.0], [1.0, -decay], powers, axis=0, zi=past)
        count, total, squares = np.split(sums, 3, axis=1)
        count = np.maximum(count, np.finfo(np.float64).tiny)
        mean = total / count
        deviation = np.sqrt(np.maximum(squares / count - mean**2, 0))
        varies = known & (deviation > _CONSTANT * np.abs(mean))
        scores = np.divide(values - mean, deviation, out=np.zeros_like(mean), where=varies)
        scores = np.clip(scores, -LARGEST, LARGEST).astype(np.float32)
        return sums[-1].reshape(3, channels), scores

    def _with_logs(
        self, values: Float64[np.ndarray, "bins channels"], where: str
    ) -> Float64[np.ndarray, "bins channels"]:
        if self.log is None:
            return values
        recorded = np.arange(values.shape[1]) if self.chosen is None else self.chosen
        logs = np.isin(recorded, self.log)
        if (values[:, logs] <= -1).any():
            raise DataError(
                f"{where}: has values of -1 or less in channels of data.normalize_log. Take the "
                "logarithm of counts and powers only, not of features that are z-scored"
            )
        return np.log1p(values, out=values, where=logs[None, :])


def read_normalization(data: Mapping[str, Any]) -> RunningNormalization | None:
    """What `data` in a config says of normalisation; None: features are used as they are stored.

    Raises:
        DataError: a value is unknown or out of range.
    """
    kind, window, log = (data[f"normalize{key}"] for key in ("", "_window", "_log"))
    if kind not in (AS_STORED, RUNNING):
        raise DataError(f"data.normalize is {kind!r}; choose {AS_STORED} or {RUNNING}")
    if not 0 < window < np.inf:
        raise DataError(f"data.normalize_window is {window}; give seconds, more than 0")
    logs = parse_channels(log, "data.normalize_log")
    if kind == AS_STORED:
        if logs is not None:
            raise DataError(f"data.normalize_log is {log!r}; it needs data.normalize={RUNNING}")
        return None
    return RunningNormalization(window, logs, parse_channels(data["channels"]))
