"""Phoneme durations and smooth trajectories of the articulators.

Speech motor cortex follows the movements of the articulators rather than phonemes as such
(Chartier et al., Neuron 2018; Willett et al., Nature 2023), so neighbouring phonemes blend here
too.
"""

import numpy as np
from jaxtyping import Float32, Int32, Int64
from scipy.signal import lfilter

from modessm_jax.phonemes import SILENCE, SYMBOLS
from modessm_jax.simulate.phonetics import ARTICULATIONS, Articulation

BINS_PER_MINUTE = 3000
ARTICULATORS = (
    "lips closed",
    "lip meets teeth",
    "lips rounded",
    "tongue tip raised",
    "tongue tip back",
    "tongue body raised",
    "tongue body back",
    "jaw open",
    "velum open",
    "glottis open",
    "voice",
    "friction",
    "complete closure",
    "tongue sides lowered",
    "tongue bunched",
    "muscles tense",
    "voiced vowel",
)
_CONSTRICTION = {
    "stop": 1.0,
    "nasal": 1.0,
    "affricate": 0.9,
    "fricative": 0.8,
    "lateral": 0.9,
    "approximant": 0.6,
}
# How far back the tongue tip touches, from the teeth to behind the ridge.
_TIP = {"dental": -1.0, "alveolar": 0.0, "postalveolar": 1.0}
# How far back the tongue's body rises.
_BODY = {"palatal": -0.5, "velar": 0.5, "labial-velar": 1.0}
# Time constant of the articulators, in bins of 20 ms. It is applied forwards and backwards in time:
# a sound is prepared during the one before and lingers into the one after.
_TIME_CONSTANT = 2.0
# Relative lengths; mean durations follow from the speaking rate.
_LENGTH = {"stop": 0.8, "affricate": 1.0, "fricative": 1.1, "vowel": 1.2, "silence": 1.0}
_SHAPE = 12.0  # of the gamma jitter of durations: a coefficient of variation of 0.29


def articulator_targets() -> Float32[np.ndarray, "phoneme end articulator"]:
    """Target position of each articulator at the start and at the end of each phoneme.

    Each articulator has mean 0 and variance 1 over the 39 phonemes and silence; the blank is 0.
    """
    targets = np.zeros((len(SYMBOLS), 2, len(ARTICULATORS)))
    for index, symbol in enumerate(SYMBOLS[1:], 1):
        for end in (0, 1):
            gesture = _gesture(ARTICULATIONS[symbol], end)
            targets[index, end] = [gesture.get(name, 0.0) for name in ARTICULATORS]
    spoken = targets[1:]
    spoken -= spoken.mean(axis=(0, 1))
    spoken /= spoken.std(axis=(0, 1))
    return targets.astype(np.float32)


def draw_durations(
    rng: np.random.Generator, ids: Int32[np.ndarray, "phonemes"], *, bins_per_phoneme: float
) -> Int64[np.ndarray, "phonemes"]:
    """Bins (at least 2) of each phoneme, near `bins_per_phoneme` on average over a sentence."""
    lengths = np.array([_LENGTH.get(ARTICULATIONS[SYMBOLS[i]].manner, 0.9) for i in ids])
    lengths *= rng.gamma(_SHAPE, 1 / _SHAPE, len(ids))
    return np.maximum(2, np.rint(lengths * bins_per_phoneme)).astype(np.int64)


def trajectory(
    ids: Int32[np.ndarray, "phonemes"],
    durations: Int64[np.ndarray, "phonemes"],
    targets: Float32[np.ndarray, "phoneme end articulator"],
) -> Float32[np.ndarray, "bins articulator"]:
    """The articulators at every bin, between rest and rest."""
    of_bin = np.repeat(np.arange(len(ids)), durations)
    elapsed = np.arange(len(of_bin)) - np.repeat(np.cumsum(durations) - durations, durations)
    progress = ((elapsed + 0.5) / durations[of_bin]).astype(np.float32)[:, None]
    start, end = targets[ids[of_bin], 0], targets[ids[of_bin], 1]
    rest = targets[SILENCE, 0]
    path = start + (end - start) * progress - rest
    decay = np.exp(-1 / _TIME_CONSTANT)
    for _ in range(2):
        path = lfilter([1 - decay], [1, -decay], path, axis=0)[::-1]
    return (path + rest).astype(np.float32)


def _gesture(articulation: Articulation, end: int) -> dict[str, float]:
    voice = {"voice": float(articulation.voiced), "tongue bunched": float(articulation.rhotic)}
    if articulation.glide is not None:
        quality = articulation.glide[end]
        return voice | {
            "voiced vowel": 1.0,
            "jaw open": 1.2 - quality.height,
            "tongue body raised": quality.height,
            "tongue body back": 2 * quality.backness - 1,
            "lips rounded": float(quality.rounded),
            "muscles tense": float(articulation.tense),
        }
    if articulation.manner == "silence":
        return {}
    constriction = _CONSTRICTION[articulation.manner]
    gesture = voice | {
        "friction": float(articulation.manner in ("fricative", "affricate")),
        "complete closure": float(articulation.manner in ("stop", "affricate", "nasal")),
        "velum open": float(articulation.manner == "nasal"),
        "tongue sides lowered": float(articulation.manner == "lateral"),
        "glottis open": float(articulation.place == "glottal") + 0.3 * (not articulation.voiced),
        "jaw open": 0.2,
    }
    if articulation.place == "bilabial":
        gesture["lips closed"] = constriction
    elif articulation.place == "labiodental":
        gesture |= {"lips closed": 0.5, "lip meets teeth": 1.0}
    elif articulation.place in _TIP:
        gesture |= {
            "tongue tip raised": constriction,
            "tongue tip back": _TIP[articulation.place],
        }
    elif articulation.place in _BODY:
        gesture |= {
            "tongue body raised": constriction,
            "tongue body back": _BODY[articulation.place],
            "lips rounded": float(articulation.place == "labial-velar"),
        }
    return gesture
