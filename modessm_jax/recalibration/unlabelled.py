"""Recalibration without labels: the adapter of a session follows its features, trial by trial.

The decoder labels each trial itself, and one gradient step on the adapter of the session, and on
nothing else, makes it more certain of that. Every trial is decoded before the step that uses it, so
that it is a fair check of the steps before: what made the decoder doubt more is taken back.
"""

import math
import time
from collections.abc import Callable, Sized
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Float, Float32

from modessm_jax.augmentation.augment import Augmentation
from modessm_jax.evaluation.posteriors import best_path, log_probabilities
from modessm_jax.losses.ctc import ctc_cost
from modessm_jax.models.outputs import Outputs
from modessm_jax.phonemes import BLANK, CLASSES, SILENCE
from modessm_jax.recalibration.adapter import Adapter, with_adapter
from modessm_jax.recalibration.statistics import FeatureStatistics, matched
from modessm_jax.runs.load import Run
from modessm_jax.runtime.keys import Purpose, root
from modessm_jax.sequence import Sequence
from modessm_jax.text import phoneme_edits

STATISTICS, PSEUDO_LABELS, MASKED_COPIES, ENTROPY = METHODS = (
    "statistics",
    "pseudo_labels",
    "masked_copies",
    "entropy",
)
# Trials are padded to one of four lengths in each octave: each is compiled for once.
_SHORTEST = 128
# A trial whose frames are less certain than this is not learned from (Niu et al. 2022), in nats.
_UNCERTAIN = 0.4 * math.log(CLASSES)

Label = Callable[[Float32[np.ndarray, "frames classes"]], list[int]]


@dataclass(frozen=True)
class Options:
    """How to recalibrate without labels.

    Attributes:
        method: "statistics": mean and deviation of each feature become those of the sessions
            trained on. "pseudo_labels": CTC on the phonemes that the decoder found, with its
            language model if it has one (Fan et al. 2023, "Plug-and-play stability for
            intracortical brain-computer interfaces"). "masked_copies": the same on several copies
            with hidden bins and noise (Feghhi et al. 2025, "DietCORP"). "entropy": less entropy of
            the frames (Wang et al. 2021, "Tent"), of trials that are certain enough (Niu et al.
            2022, "Efficient test-time model adaptation without forgetting").
        rate: learning rate of Adam.
        copies: of a trial, in one step of "masked_copies".
        window: trials between two checks of whether the decoder doubts more than before.
        seed: of the copies.
    """

    method: str = MASKED_COPIES
    rate: float = 3e-4
    copies: int = 4
    window: int = 8
    seed: int = 0

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ValueError(f"method is {self.method!r}; choose one of {', '.join(METHODS)}")
        for name in ("copies", "window"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; give 1 or more")
        if not 0 < self.rate < math.inf:
            raise ValueError(f"rate is {self.rate}; give a finite number above 0")


@dataclass(frozen=True)
class Update:
    """What became of one trial.

    Attributes:
        frames: log-probabilities, of the adapter before the step.
        phonemes: the trial's label: decoded before the step, with the language model if there is
            one.
        doubt: see `Recalibrator`.
        loss: of the gradient step; None where there was none.
        unused: why nothing was learned from the trial; empty if something was.
        taken_back: whether the steps since the last check were undone.
        seconds: that the gradient step took.
    """

    frames: Float32[np.ndarray, "frames classes"]
    phonemes: list[int]
    doubt: float
    loss: float | None
    unused: str
    taken_back: bool
    seconds: float


def sentence_label(search: Any) -> Label:
    """Labels a trial with the phonemes of the sentence that a word search of CTC finds."""

    def label(frames: np.ndarray) -> list[int]:
        words = search(frames)[0].words
        return [p for word in words for p in (*search.lexicon.words[word][0], SILENCE)]

    return label


class Recalibrator:
    """Recalibrates the adapter of one session after the other.

    The decoder's doubt of a trial is the phoneme error rate of its greedy phonemes against those of
    the sentence that its language model makes of them; without a language model, the mean entropy
    of the frames in nats. A trial without phonemes is doubted most. After every `window` trials the
    doubt of these, each decoded before its step, is compared with that of the adapter as it was at
    the check before. If it is larger, that adapter comes back. A trial in which both find nothing
    says nothing of either, and is not counted.

    Attributes:
        adapter: with the latest steps.
        kept: as it was when it last passed a check, or at the beginning.
        checks: how many there were since `begin`; taken_back: how many of them undid steps.
    """

    adapter: Adapter
    kept: Adapter

    def __init__(self, run: Run, options: Options, label: Label | None = None):
        """Prepares the gradient step; it is compiled when the first trial of a length comes.

        Args:
            run: whose model decodes.
            options: see there.
            label: from log-probabilities to phoneme ids, such as `sentence_label` gives; by default
                the greedy phonemes.

        Raises:
            ValueError: the model cannot be recalibrated by this method; the message says why.
        """
        if options.method == MASKED_COPIES and not run.config["augment"].get("time_masks"):
            raise ValueError(
                "masked_copies hide bins, which this model was not trained for "
                "(augment.time_masks is 0): choose pseudo_labels"
            )
        if options.method == STATISTICS and run.config["model"].get("session") != "affine":
            raise ValueError("statistics need model.session 'affine': choose another method")
        self.options, self._words, self._params = options, label, run.params
        self._multiple, self._channels = run.functional.multiple, run.channels
        self._optimizer = optax.adam(options.rate)
        self._decode, self._step = _compiled(run, options, self._optimizer)

    def begin(self, adapter: Adapter, like: FeatureStatistics | None = None) -> None:
        """Begins a session.

        Args:
            adapter: to begin with.
            like: of the features that the adapter was made for; "statistics" needs them.
        """
        self.adapter = self.kept = self._begun = dict(adapter)
        self._like, self._seen = like, FeatureStatistics.empty(self._channels)
        self._moments = self._optimizer.init(self.adapter)
        self.checks = self.taken_back = self._trials = 0
        self._doubts: list[tuple[float, float]] = []  # of the adapter, and of the one kept

    def __call__(self, features: Float32[np.ndarray, "bins channels"]) -> Update:
        """Decodes a trial, then learns from it."""
        x = self._padded(features)
        frames, phonemes, doubt = self._decoded(x, self.adapter)
        before = doubt if self.adapter is self.kept else self._decoded(x, self.kept)[2]
        if min(doubt, before) < math.inf:
            self._doubts.append((doubt, before))
        start = time.perf_counter()
        loss, unused = self._learn(features, x, frames, phonemes)
        seconds = time.perf_counter() - start
        self._trials += 1
        worse = len(self._doubts) == self.options.window and self._check()
        return Update(frames, phonemes, doubt, loss, unused, worse, seconds)

    def result(self) -> Adapter:
        """The adapter after a last check, of the trials since the one before."""
        if self._doubts:
            self._check()
        return self.adapter

    def _check(self) -> bool:
        """Keeps the adapter, or takes it back."""
        now, before = (sum(doubts) for doubts in zip(*self._doubts, strict=True))
        self._doubts = []
        self.checks += 1
        if now > before:
            self.taken_back += 1
            self.adapter, self._moments = self.kept, self._optimizer.init(self.kept)
            return True
        self.kept = self.adapter
        return False

    def _learn(
        self, features: np.ndarray, x: Sequence, frames: np.ndarray, phonemes: list[int]
    ) -> tuple[float | None, str]:
        """The loss of the step, if there was one, and why nothing was learned, if so."""
        options = self.options
        if options.method == STATISTICS:
            assert self._like is not None
            self._seen = self._seen.with_trial(features)
            self.adapter = matched(self._begun, self._seen, self._like)
            return None, ""
        if not phonemes:
            return None, "nothing was found in it"
        if options.method == ENTROPY and _entropy(frames) > _UNCERTAIN:
            return None, "what was found in it is too uncertain"
        width = _SHORTEST
        while width < len(phonemes):
            width *= 2
        labels = _alone(np.pad(np.array(phonemes, np.int32), (0, width - len(phonemes))), phonemes)
        key = jax.random.fold_in(root(options.seed, Purpose.AUGMENTATION), self._trials)
        adapter, moments, loss = self._step(
            self._params, self.adapter, self._moments, x, labels, key
        )
        loss = float(loss)
        if not all(np.isfinite(x).all() for x in (loss, *adapter.values())):
            return None, "its loss or its gradient is not finite"
        self.adapter, self._moments = adapter, moments
        return loss, ""

    def _decoded(
        self, x: Sequence, adapter: Adapter
    ) -> tuple[Float32[np.ndarray, "frames classes"], list[int], float]:
        found = jax.device_get(self._decode(self._params, adapter, x))
        frames = found.values[0, : found.mask[0].sum()]
        greedy = best_path(frames)[0].tolist()
        if not greedy:
            return frames, [], math.inf
        if self._words is None:
            return frames, greedy, _entropy(frames)
        phonemes = self._words(frames)
        return frames, phonemes, phoneme_edits(phonemes, greedy).count / len(greedy)

    def _padded(self, features: Float32[np.ndarray, "bins channels"]) -> Sequence:
        bins = max(len(features), _SHORTEST)
        unit = math.lcm(self._multiple, 2 ** (bins.bit_length() - 3))
        length = -(-bins // unit) * unit
        return _alone(np.pad(features, ((0, length - len(features)), (0, 0))), features)


def _alone(padded: np.ndarray, real: Sized) -> Sequence:
    """A batch of one."""
    return Sequence.from_lengths(jnp.asarray(padded[None]), jnp.array([len(real)], jnp.int32))


def _entropy(frames: Float32[np.ndarray, "frames classes"]) -> float:
    """Mean entropy in nats, each frame as much as it is not blank."""
    spoken = -np.expm1(frames[:, BLANK])
    return float((spoken * _entropies(frames, np)).sum() / max(spoken.sum(), 1e-6))


def _entropies(frames: Any, xp: Any) -> Any:
    return -(xp.exp(frames) * frames).sum(axis=-1)


def _compiled(
    run: Run, options: Options, optimizer: optax.GradientTransformation
) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """The jitted decoding and gradient step, with parameters, adapter and trial as arguments."""
    config = dict(run.config["augment"])
    if options.method != MASKED_COPIES:
        config |= {"time_masks": 0}
    augment = Augmentation(**config)
    copies = options.copies if options.method == MASKED_COPIES else 1

    def outputs(params: Any, adapter: Adapter, x: Sequence, hidden: Any = None) -> Outputs:
        session = jnp.zeros(x.mask.shape[0], jnp.int32)
        return run.functional.apply(with_adapter(params, adapter), x, session, hidden)

    def decode(params: Any, adapter: Adapter, x: Sequence) -> Sequence:
        return log_probabilities(outputs(params, adapter, x))

    def loss_of(
        adapter: Adapter, params: Any, x: Sequence, labels: Sequence, key: Any
    ) -> Float[jax.Array, ""]:
        if options.method == ENTROPY:
            frames = log_probabilities(outputs(params, adapter, x))
            weight = jax.lax.stop_gradient(-jnp.expm1(frames.values[..., BLANK])) * frames.mask
            entropies = jnp.where(frames.mask, _entropies(frames.values, jnp), 0.0)
            return (weight * entropies).sum() / jnp.maximum(weight.sum(), 1e-6)
        x, hidden = augment(x, key, copies)
        labels = jax.tree.map(lambda leaf: jnp.repeat(leaf, copies, axis=0), labels)
        logits = outputs(params, adapter, x, hidden).logits["phoneme"]
        cost = ctc_cost(logits, labels)
        return (cost.nats / jnp.maximum(logits.lengths, 1)).mean()

    def step(
        params: Any, adapter: Adapter, moments: Any, x: Sequence, labels: Sequence, key: Any
    ) -> tuple[Any, Any, Float[jax.Array, ""]]:
        loss, gradient = jax.value_and_grad(loss_of)(adapter, params, x, labels, key)
        updates, moments = optimizer.update(gradient, moments, adapter)
        return optax.apply_updates(adapter, updates), moments, loss

    return jax.jit(decode), jax.jit(step)
