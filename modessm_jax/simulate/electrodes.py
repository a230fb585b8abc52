"""Four arrays of electrodes, what they are tuned to, and how that drifts from day to day."""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float32

from modessm_jax.simulate.articulation import ARTICULATORS
from modessm_jax.simulate.calendar import Stream, generator

# In the channel order of T15; how strongly each array follows speech, relative to the strongest.
ARRAYS = {"v6v": 1.0, "area 4": 0.8, "55b": 0.5, "d6v": 0.8}
SHARED_SOURCES = 12
# Standard deviations of the log rate of an average electrode: by speech, by noise that electrodes
# share, and by the part of this noise that moves all electrodes the same way.
_TUNING = 0.26
_SHARED_NOISE = 0.22
_COMMON_NOISE = 0.1
_DEAD, _NOISY = 0.02, 0.02
_WEEKLY_BASELINE_STEP = 0.1  # of the log rate


@dataclass(frozen=True)
class Electrodes:
    """One day's recording properties of every electrode.

    `log_rate` is the log of spikes per bin; `tuning` and `shared` are added to it for each unit of
    an articulator or of a shared noise source. `spike_power` is the band power of one spike.
    """

    log_rate: Float32[np.ndarray, "electrode"]
    tuning: Float32[np.ndarray, "electrode articulator"]
    shared: Float32[np.ndarray, "electrode source"]
    spike_power: Float32[np.ndarray, "electrode"]
    dead: Bool[np.ndarray, "electrode"]
    noisy: Bool[np.ndarray, "electrode"]


def implant(seed: int, electrodes: int) -> Electrodes:
    """The electrodes on the first day.

    Raises:
        ValueError: `electrodes` cannot be divided among the four arrays.
    """
    if electrodes < len(ARRAYS) or electrodes % len(ARRAYS):
        raise ValueError(f"electrodes must be a multiple of {len(ARRAYS)}, got {electrodes}")
    rng = generator(seed, Stream.IMPLANT)
    strength = np.repeat(list(ARRAYS.values()), electrodes // len(ARRAYS))
    strength = strength * rng.lognormal(0.0, 0.4, electrodes)
    damage = rng.random(electrodes)
    shared = rng.normal(0, _SHARED_NOISE / np.sqrt(SHARED_SOURCES), (electrodes, SHARED_SOURCES))
    shared[:, 0] = np.abs(shared[:, 0]) + _COMMON_NOISE
    return Electrodes(
        log_rate=rng.normal(-0.6, 0.45, electrodes).astype(np.float32),
        tuning=_tuning(rng, strength),
        shared=shared.astype(np.float32),
        spike_power=rng.lognormal(-0.7, 0.3, electrodes).astype(np.float32),
        dead=damage < _DEAD,
        noisy=damage > 1 - _NOISY,
    )


def drifted(
    electrodes: Electrodes, weeks: float, seed: int, session: int, *, tuning_loss: float
) -> Electrodes:
    """The same electrodes `weeks` later: one step of a random walk that keeps the tuning's size.

    `tuning_loss` is the part of the tuning that is lost in a week, and replaced by new tuning.
    """
    rng = generator(seed, Stream.DRIFT, session)
    kept = np.float32((1 - tuning_loss) ** weeks)
    strength = np.sqrt(np.mean(electrodes.tuning**2, axis=1) * len(ARTICULATORS)) / _TUNING
    new = _tuning(rng, strength)
    step = rng.normal(0, _WEEKLY_BASELINE_STEP * np.sqrt(weeks), electrodes.log_rate.shape)
    return replace(
        electrodes,
        log_rate=(electrodes.log_rate + step).astype(np.float32),
        tuning=kept * electrodes.tuning + np.sqrt(1 - kept**2) * new,
    )


def _tuning(
    rng: np.random.Generator, strength: np.ndarray
) -> Float32[np.ndarray, "electrode articulator"]:
    directions = rng.normal(0, 1, (len(strength), len(ARTICULATORS)))
    directions *= (_TUNING / np.sqrt(len(ARTICULATORS))) * strength[:, None]
    return directions.astype(np.float32)
