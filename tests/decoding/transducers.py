"""Transducers small enough to search by hand, with another output after every label sequence."""

import itertools
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from modessm_jax import phonemes
from modessm_jax.decoding.transducer import Transducer, log_probabilities
from modessm_jax.losses.transducer import Joint
from modessm_jax.sequence import Sequence
from tests.losses.enumeration import rnnt_nats

CLASSES, D, NODES = 3, 5, 101

Labels = tuple[int, ...]


class Toy(NamedTuple):
    """A random joint network, and a predictor whose state is a number for the labels so far."""

    table: np.ndarray  # [nodes, d]: the output of each state
    kernel: np.ndarray
    bias: np.ndarray

    def transducer(self) -> Transducer:
        """For the searches; call it where 64-bit numbers are on."""
        table = jnp.asarray(self.table)

        def start(batch: int) -> Any:
            state = jnp.zeros((batch,), jnp.int32)
            return state, table[state]

        def advance(state: Any, labels: Any) -> Any:
            state = self.after(state, labels)
            return state, table[state]

        joint = Joint(jnp.asarray(self.kernel), jnp.asarray(self.bias))
        return Transducer(start, advance, partial(log_probabilities, joint))

    def after(self, state: Any, label: Any) -> Any:
        """The state one label later."""
        return (self.kernel.shape[1] * state + label) % len(self.table)

    def outputs(self, labels: Labels) -> np.ndarray:
        """[labels + 1, d] of the predictor."""
        nodes = [0]
        for label in labels:
            nodes.append(self.after(nodes[-1], label))
        return self.table[nodes]

    def logits(self, frames: np.ndarray, labels: Labels) -> np.ndarray:
        """[frames, labels + 1, classes], by NumPy."""
        return np.tanh(frames[:, None] + self.outputs(labels)[None]) @ self.kernel + self.bias

    def log_p(self, frame: np.ndarray, labels: Labels) -> np.ndarray:
        """[classes] of what follows one frame and the labels."""
        logits = self.logits(frame[None], labels)[0, -1]
        return logits - np.log(np.exp(logits).sum())

    def every_score(self, frames: np.ndarray, most: int) -> dict[Labels, float]:
        """Log probability of every sequence up to `most` labels, best first."""
        if not len(frames):
            return {}
        alphabet = range(1, CLASSES)
        sequences = (s for n in range(most + 1) for s in itertools.product(alphabet, repeat=n))
        return best_first({s: -rnnt_nats(self.logits(frames, s), list(s)) for s in sequences})


def best_first(scores: dict[Labels, float]) -> dict[Labels, float]:
    return dict(sorted(scores.items(), key=lambda item: -item[1]))


@cache
def parrot(sure: float = 1 - 1e-9) -> Transducer:
    """Emits each frame's label, or a blank if that label was the last one emitted."""

    def start(batch: int) -> Any:
        return (), jax.nn.one_hot(jnp.zeros(batch, jnp.int32), phonemes.CLASSES)

    def advance(state: Any, labels: Any) -> Any:
        return state, jax.nn.one_hot(labels, phonemes.CLASSES)

    def joint(frame: Any, last: Any) -> Any:
        repeated = (frame * last).sum(axis=-1, keepdims=True)
        blank = jax.nn.one_hot(jnp.zeros(frame.shape[:-1], jnp.int32), phonemes.CLASSES)
        wanted = jnp.where(repeated > 0, blank, frame)
        return jnp.log(jnp.where(wanted > 0, sure, (1 - sure) / (phonemes.CLASSES - 1)))

    return Transducer(start, advance, joint)


def random_toy(seed: int, blank: float = 0.0) -> Toy:
    """`blank` is added to the logit of the blank."""
    random = np.random.default_rng(seed)
    bias = random.normal(size=CLASSES)
    bias[0] += blank
    return Toy(random.normal(size=(NODES, D)), 2 * random.normal(size=(D, CLASSES)), bias)


def random_frames(
    seed: int, batch: int, time: int, fill: float = np.nan
) -> tuple[Sequence, list[np.ndarray]]:
    """Encoder frames of 0 to `time` frames with `fill` for padding, and each example's own."""
    random = np.random.default_rng(seed)
    values = 2 * random.normal(size=(batch, time, D))
    lengths = random.integers(0, time + 1, batch)
    frames = [row[:length] for row, length in zip(values, lengths, strict=True)]
    padding = np.arange(time)[None, :] >= lengths[:, None]
    values = np.where(padding[..., None], fill, values)
    return Sequence(jnp.asarray(values), jnp.asarray(~padding)), frames
