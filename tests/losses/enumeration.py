"""Both lattice sums by listing every alignment, in float64: the truth the losses are held to."""

import functools
import itertools
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np

from modessm_jax.sequence import Sequence


def ctc_nats(logits: np.ndarray, target: list[int]) -> float:
    """-ln of the summed probability of all paths [frames] that collapse to the target."""
    frames, classes = logits.shape
    paths = _collapsing(frames, classes).get(tuple(target))
    if paths is None:
        return np.inf
    return -_log_sum(_log_softmax(logits)[np.arange(frames)[None, :], paths].sum(axis=1))


def rnnt_nats(logits: np.ndarray, target: list[int]) -> float:
    """-ln of the summed probability of all walks through the lattice [frames, positions]."""
    log_p = _log_softmax(logits)
    frames, labels = logits.shape[0], len(target)
    walks = []
    # Every walk ends with a blank; the labels take any of the places before it.
    for places in itertools.combinations(range(frames - 1 + labels), labels):
        time = position = 0
        score = 0.0
        for place in range(frames + labels):
            if place in places:
                score += log_p[time, position, target[position]]
                position += 1
            else:
                score += log_p[time, position, 0]
                time += 1
        walks.append(score)
    return -_log_sum(np.array(walks))


def slopes(
    nats: Callable[[np.ndarray, list[int]], float], logits: np.ndarray, target: list[int]
) -> np.ndarray:
    """Central differences of `nats` with respect to every finite logit."""
    result = np.zeros_like(logits)
    for index in np.ndindex(*logits.shape):
        if np.isfinite(logits[index]):
            step = np.zeros_like(logits)
            step[index] = 1e-5
            result[index] = (nats(logits + step, target) - nats(logits - step, target)) / 2e-5
    return result


def padded(targets: list[list[int]], width: int) -> Sequence:
    """Targets as labels padded to a width."""
    values = np.zeros((len(targets), width), np.int32)
    for row, target in enumerate(targets):
        values[row, : len(target)] = target
    lengths = jnp.asarray([len(target) for target in targets], jnp.int32)
    return Sequence.from_lengths(jnp.asarray(values), lengths)


@functools.cache
def _collapsing(frames: int, classes: int) -> dict[tuple[int, ...], np.ndarray]:
    """All paths of a length, by what they collapse to."""
    paths: dict[tuple[int, ...], list[tuple[int, ...]]] = {}
    for path in itertools.product(range(classes), repeat=frames):
        paths.setdefault(tuple(k for k, _ in itertools.groupby(path) if k), []).append(path)
    return {target: np.array(of_target) for target, of_target in paths.items()}


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def _log_sum(scores: np.ndarray) -> float:
    top = scores.max()
    return float(top + np.log(np.exp(scores - top).sum())) if np.isfinite(top) else -np.inf
