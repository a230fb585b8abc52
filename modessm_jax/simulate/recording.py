"""From articulators to features: spikes, band power, noise, and the benchmarks' normalisation."""

import numpy as np
from jaxtyping import Float32
from scipy.signal import lfilter

from modessm_jax.simulate.calendar import Mode
from modessm_jax.simulate.electrodes import SHARED_SOURCES, Electrodes

_SHARED_TIME = 10.0  # time constant of the shared noise, in bins
# Log-normal background power, relative to the amplifier's: its mean, its noise, and how many times
# more strongly than a single unit's rate it follows speech and shared noise.
_POWER_MEAN, _POWER_NOISE, _POWER_GAIN = -0.5, 0.9, 1.3
_NOISY_RATE = 4.0  # spikes per bin of a broken electrode


def record(
    rng: np.random.Generator,
    articulators: Float32[np.ndarray, "bins articulator"],
    drift: Float32[np.ndarray, "bins source"],
    electrodes: Electrodes,
    mode: Mode,
) -> Float32[np.ndarray, "bins features"]:
    """Log features of one trial: log(1 + threshold crossings), then log spike-band power.

    Crossings are Poisson at a log-linear rate. Band power is the amplifier's noise, a log-normal
    background of many cells that follows the same rate, and what the counted spikes add. `drift`
    is the slow part of the shared noise.
    """
    bins, count = len(articulators), len(electrodes.log_rate)
    decay = np.exp(-1 / _SHARED_TIME)
    innovations = rng.standard_normal((bins, SHARED_SOURCES), np.float32)
    noise = lfilter([np.sqrt(1 - decay**2)], [1, -decay], innovations, axis=0) + drift
    modulation = mode.modulation * articulators @ electrodes.tuning.T
    modulation += noise.astype(np.float32) @ electrodes.shared.T
    rates = np.exp(electrodes.log_rate + modulation)
    rates[:, electrodes.noisy] = _NOISY_RATE
    crossings = rng.poisson(rates).astype(np.float32)
    background = rng.standard_normal((bins, count), np.float32) * np.float32(_POWER_NOISE)
    background += np.float32(_POWER_GAIN) * modulation + np.float32(_POWER_MEAN)
    power = 1 + np.exp(background) + electrodes.spike_power * crossings
    features = np.concatenate([np.log1p(crossings), np.log(power)], axis=1)
    features[:, np.tile(electrodes.dead, 2)] = 0
    return features


def slow_drift(rng: np.random.Generator, trials: int) -> Float32[np.ndarray, "boundaries source"]:
    """Levels of the slow shared noise at the `trials` + 1 boundaries between a block's trials."""
    keep = 0.8
    innovations = rng.standard_normal((trials + 1, SHARED_SOURCES))
    levels = lfilter([0.6 * np.sqrt(1 - keep**2)], [1, -keep], innovations, axis=0)
    return np.asarray(levels, np.float32)


def normalize_block(
    trials: list[Float32[np.ndarray, "_ features"]],
) -> list[Float32[np.ndarray, "_ features"]]:
    """Each feature with mean 0 and variance 1 over the block; 0 where it never changes."""
    bins = sum(map(len, trials))
    mean = sum(trial.sum(axis=0, dtype=np.float64) for trial in trials) / bins
    variance = sum(((trial - mean) ** 2).sum(axis=0) for trial in trials) / bins
    scale = 1 / np.sqrt(np.where(variance > 0, variance, np.inf))
    return [((trial - mean) * scale).astype(np.float32) for trial in trials]
