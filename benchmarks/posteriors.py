"""Synthetic phoneme posteriors of real sentences, calibrated to a phoneme error rate.

The errors are those of a real decoder: substitutions, deletions and insertions of each phoneme are
counted in the greedy output of the official T12 baseline (880 recorded trials). Some frames are
hard and most are not: a frame's error rates are those counts times a random difficulty, all scaled
so that greedy decoding has the wanted phoneme error rate. The frame is then the posterior of an
observer with these rates (Bayes): its probabilities are calibrated, better than those of a trained
network. They model no timing, no co-articulation and no errors of a speaker: they are not neural
data.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float32, Int
from rapidfuzz.distance import Levenshtein

from modessm_jax.phonemes import BLANK, CLASSES
from modessm_jax.text import percent, phoneme_edits, total

# Means of Poisson counts: further frames of a phoneme, and blanks after it; with 80 ms a frame some
# three phonemes a second, as in slow attempted speech.
_LONGER = 0.3
_BLANKS = 2.7
# Shape of the gamma distribution of difficulties: below 1, few frames hold most of the errors.
_SHAPE = 0.3
# Where a scale is looked for, and how often the (logarithmic) interval is halved.
_SCALES = (0.05, 20.0)
_HALVINGS = 10


@dataclass(frozen=True)
class Confusions:
    """How often a class is decoded as another: rates [true, decoded] whose diagonal is 0."""

    rates: Float[np.ndarray, "classes classes"]
    # Share of the frames of each class.
    prior: Float[np.ndarray, "classes"]


def count_confusions(trials: Iterable[tuple[list[int], list[int]]]) -> Confusions:
    """Counts (reference, greedy output) pairs; an insertion is a blank decoded as a phoneme.

    For every class one error more is counted than occurs, spread over all kinds, so that none is
    impossible.
    """
    errors = np.zeros((CLASSES, CLASSES))
    true = np.zeros(CLASSES)
    for reference, output in trials:
        np.add.at(true, reference, 1)
        for edit in Levenshtein.editops(reference, output):
            before = BLANK if edit.tag == "insert" else reference[edit.src_pos]
            after = BLANK if edit.tag == "delete" else output[edit.dest_pos]
            errors[before, after] += 1
    true[BLANK] = _BLANKS * true.sum()
    prior = true / true.sum()
    errors += prior
    np.fill_diagonal(errors, 0)
    return Confusions(errors / np.maximum(true, 1)[:, None], prior)


def read_confusions(recorded: Path) -> Confusions:
    """The confusions of the recorded T12 trials (`t12_val_phonemes.json`)."""
    trials = json.loads((recorded / "t12_val_phonemes.json").read_text(encoding="utf-8"))
    return count_confusions((trial["phonemes"], trial["gru"]) for trial in trials)


def frames_of(
    phonemes: Int[np.ndarray, "phonemes"], random: np.random.Generator
) -> Int[np.ndarray, "frames"]:
    """The true class of each frame: phonemes of one frame or more with blanks between."""
    lengths = 1 + random.poisson(_LONGER, len(phonemes))
    blanks = random.poisson(_BLANKS, len(phonemes))
    # Equal neighbours without a blank between would be one phoneme.
    blanks[:-1] = np.maximum(blanks[:-1], phonemes[1:] == phonemes[:-1])
    runs = np.stack([lengths, blanks], axis=1).reshape(-1)
    true = np.stack([phonemes, np.full_like(phonemes, BLANK)], axis=1).reshape(-1)
    return np.repeat(true, runs)


def log_posteriors(
    phonemes: Int[np.ndarray, "phonemes"], confusions: Confusions, scale: float, seed: int
) -> Float32[np.ndarray, "frames classes"]:
    """Log-probabilities of the classes in each frame of one sentence.

    Args:
        phonemes: ids of the sentence, silence after every word.
        confusions: error rates of a real decoder.
        scale: factor of these rates, see `calibrate`.
        seed: of this sentence; the same frames are hard at every scale.
    """
    random = np.random.default_rng(seed)
    true = frames_of(phonemes, random)
    # The frames of one phoneme are decoded alike, or a phoneme of two frames could err twice.
    run = np.cumsum(np.concatenate([[0], true[1:] != true[:-1]]))
    run = np.where(true == BLANK, np.arange(len(true)) + len(true), run)
    _, run = np.unique(run, return_inverse=True)
    difficulty = random.gamma(_SHAPE, 1 / _SHAPE, run.max() + 1)[run]
    draw = random.random(run.max() + 1)[run]
    wrong = np.minimum(scale * difficulty[:, None] * confusions.rates.sum(axis=1), 0.9)
    spread = confusions.rates / confusions.rates.sum(axis=1, keepdims=True)
    # [frames, true, decoded]: right, or wrong in the class's usual way.
    channel = wrong[:, :, None] * spread + (1 - wrong)[:, :, None] * np.eye(CLASSES)
    chances = channel[np.arange(len(true)), true].cumsum(axis=1)
    decoded = (draw[:, None] * chances[:, -1:] >= chances).sum(axis=1)
    likelihood = channel[np.arange(len(true)), :, decoded]
    posterior = likelihood * confusions.prior
    posterior /= posterior.sum(axis=1, keepdims=True)
    return np.log(np.maximum(posterior, 1e-7)).astype(np.float32)


def greedy(log_probabilities: Float[np.ndarray, "frames classes"]) -> list[int]:
    """The best class of every frame, repeats merged and blanks removed."""
    best = log_probabilities.argmax(axis=1)
    kept = best[np.concatenate([[True], best[1:] != best[:-1]])]
    return kept[kept != BLANK].tolist()


def phoneme_error_rate(sentences: list[np.ndarray], confusions: Confusions, scale: float) -> float:
    """Greedy error rate over sentences, each seeded with its place."""
    found = (greedy(log_posteriors(s, confusions, scale, i)) for i, s in enumerate(sentences))
    return total(phoneme_edits(s, f) for s, f in zip(sentences, found, strict=True)).rate


def calibrate(sentences: list[np.ndarray], confusions: Confusions, rate: float) -> float:
    """The scale at which greedy decoding of these sentences has this phoneme error rate.

    Raises:
        ValueError: no scale has it.
    """
    low, high = _SCALES
    if phoneme_error_rate(sentences, confusions, high) < rate:
        raise ValueError(f"no scale up to {high} gives a phoneme error rate of {percent(rate)}")
    for _ in range(_HALVINGS):
        middle = (low * high) ** 0.5
        if phoneme_error_rate(sentences, confusions, middle) < rate:
            low = middle
        else:
            high = middle
    return high
