"""Statistics of a real recording beside those of simulated ones, in a table and a picture."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float32
from matplotlib.figure import Figure
from scipy.stats import skew

from modessm_jax.simulate.calendar import VOCALIZED, Sizes, drawn
from modessm_jax.simulate.trials import simulate

LAGS = np.arange(1, 11)
# log(1 + count) takes a handful of values, the log power of n bins nearly n.
_COUNT_LEVELS = 64
_COMPARED_TRIALS = 20


@dataclass(frozen=True)
class Statistics:
    """Statistics of one kind of feature (crossings or band power), by live channel or pair.

    `at_minimum` is the fraction of bins at the channel's smallest value (for crossings: without a
    spike), `autocorrelation` is at lags of 1 to 10 bins.
    """

    at_minimum: Float[np.ndarray, "channels"]
    skewness: Float[np.ndarray, "channels"]
    autocorrelation: Float[np.ndarray, "channels lags"]
    correlation: Float[np.ndarray, "pairs"]

    def summary(self) -> dict[str, float]:
        """The numbers to compare: medians over channels, quantiles over pairs."""
        lags = np.median(self.autocorrelation, axis=0)
        low, median, high = np.quantile(self.correlation, [0.05, 0.5, 0.95])
        return {
            "bins at minimum, median": float(np.median(self.at_minimum)),
            "skewness, median": float(np.median(self.skewness)),
            "autocorrelation, lag 1": float(lags[0]),
            "autocorrelation, lag 5": float(lags[4]),
            "autocorrelation, lag 10": float(lags[9]),
            "pair correlation, 5 %": float(low),
            "pair correlation, median": float(median),
            "pair correlation, 95 %": float(high),
        }


def split_kinds(
    features: Float32[np.ndarray, "channels bins"],
) -> dict[str, Float32[np.ndarray, "_ bins"]]:
    """Threshold crossings and spike-band power, which differ in how many values a channel takes."""
    levels = np.array([len(np.unique(channel)) for channel in features])
    crossings = levels < min(_COUNT_LEVELS, features.shape[1] / 4)
    live = levels > 1
    return {"crossings": features[crossings & live], "power": features[~crossings & live]}


def statistics(features: Float32[np.ndarray, "channels bins"]) -> Statistics:
    """Statistics of live channels of one kind over one trial."""
    z = features.astype(np.float64)
    z = (z - z.mean(axis=1, keepdims=True)) / z.std(axis=1, keepdims=True)
    return Statistics(
        at_minimum=(features == features.min(axis=1, keepdims=True)).mean(axis=1),
        skewness=skew(z, axis=1),
        autocorrelation=np.stack([(z[:, lag:] * z[:, :-lag]).mean(axis=1) for lag in LAGS], axis=1),
        correlation=np.corrcoef(z)[np.triu_indices(len(z), 1)],
    )


def describe(features: Float32[np.ndarray, "channels bins"]) -> dict[str, Statistics]:
    """Statistics of each kind of feature in one trial."""
    return {kind: statistics(part) for kind, part in split_kinds(features).items()}


def simulated_like(
    real: Float32[np.ndarray, "channels bins"], seed: int
) -> Float32[np.ndarray, "channels simulated_bins"]:
    """A simulated vocalised trial with the channels of `real`, cut to its bins if it is longer.

    Raises:
        ValueError: half of the channels cannot be divided among four arrays.
    """
    sizes = Sizes(
        sessions=1,
        train=2 * _COMPARED_TRIALS,
        val=0,
        test=0,
        min_words=6,
        max_words=7,
    )
    plan = drawn(sizes, electrodes=len(real) // 2, seed=seed)
    trials = [t for block in simulate(plan) for t in block if t.mode == VOCALIZED.name]
    longest = max(trials, key=lambda trial: len(trial.features))
    return np.ascontiguousarray(longest.features[: real.shape[1]].T)


def table(real: Mapping[str, Statistics], simulated: Mapping[str, Statistics]) -> str:
    """The summaries side by side, as text."""
    lines = [f"{'':40}{'real':>10}{'simulated':>12}"]
    for kind, of_real in real.items():
        of_simulated = simulated[kind].summary()
        lines += [
            f"{kind + ': ' + name:40}{value:10.3f}{of_simulated[name]:12.3f}"
            for name, value in of_real.summary().items()
        ]
    return "\n".join(lines)


def draw(real: Mapping[str, Statistics], simulated: Mapping[str, Statistics], path: Path) -> None:
    """Draws the distributions of both next to each other into a PNG, one row per kind."""
    figure = Figure(figsize=(14, 6), layout="constrained")
    axes = figure.subplots(len(real), 4, squeeze=False)
    for row, kind in zip(axes, real, strict=True):
        for name, of_kind in (("real", real[kind]), ("simulated", simulated[kind])):
            for axis, values in (
                (row[0], of_kind.at_minimum),
                (row[1], of_kind.skewness),
                (row[3], of_kind.correlation),
            ):
                axis.hist(values, bins=30, density=True, histtype="step", label=name)
            low, median, high = np.quantile(of_kind.autocorrelation, [0.1, 0.5, 0.9], axis=0)
            row[2].plot(LAGS, median, label=name)
            row[2].fill_between(LAGS, low, high, alpha=0.2)
        row[0].set(ylabel=kind, xlabel="fraction of bins at the minimum")
        row[1].set(xlabel="skewness of a channel")
        row[2].set(xlabel="lag (bins of 20 ms)", ylabel="autocorrelation (10-90 %)")
        row[3].set(xlabel="correlation of two channels")
        row[0].legend()
    figure.savefig(path, dpi=120)
