"""Recalibration of a stream: after each sentence one step without labels, on the adapter alone."""

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from modessm_jax.data.validation import BIN_SECONDS
from modessm_jax.recalibration.adapter import Adapter, adapter_of, known_adapters
from modessm_jax.recalibration.job import features_of
from modessm_jax.recalibration.statistics import FeatureStatistics
from modessm_jax.recalibration.unlabelled import STATISTICS, Options, Recalibrator, sentence_label
from modessm_jax.runs.load import Run
from modessm_jax.streaming.head import CTC, Head

LONGEST = 40.0  # seconds; a sentence that is longer is not learned from


@dataclass(frozen=True)
class Learned:
    """What became of a sentence that a stream was to learn from.

    Attributes:
        loss: of the gradient step; None where there was none.
        taken_back: whether the steps since the last check were undone.
        unused: why nothing was learned from the sentence; empty if something was.
        seconds: that it took: decoding the sentence again, and the step.
    """

    loss: float | None
    taken_back: bool
    unused: str
    seconds: float

    def __str__(self) -> str:
        if self.unused:
            said = f"nothing was learned: {self.unused}"
        else:
            loss = "" if self.loss is None else f"loss {self.loss:.3f}, "
            said = f"recalibrated: {loss}{1000 * self.seconds:.0f} ms"
        return said + "; the last steps were taken back" * self.taken_back


class Recalibration:
    """Learns from one sentence after the other of a session.

    Attributes:
        bins: the most in a sentence that is learned from.
    """

    bins = round(LONGEST / BIN_SECONDS)

    def __init__(self, run: Run, head: Head, entry: int, options: Options):
        """Begins with an adapter of the run.

        Args:
            run: whose model is streamed.
            head: that is read; if it finds words, their phonemes are the labels.
            entry: of the session in the session layers.
            options: see there.

        Raises:
            ValueError: the model has no adapters, or cannot be recalibrated by this method; or the
                words are those of a transducer.
            DataError: "statistics" lack the training trials of the session.
        """
        sessions = [name for name, place in known_adapters(run).items() if place == entry]
        if head.words is not None and head.kind != CTC:
            raise ValueError(
                "a recalibration labels sentences by the CTC head: leave head = 'rnnt' or the "
                "lexicon away"
            )
        label = None if head.words is None else sentence_label(head.words)
        self._recalibrator = Recalibrator(run, options, label)
        like: FeatureStatistics | None = None
        if options.method == STATISTICS:
            if not sessions:
                raise ValueError(
                    "statistics are those of one session, and the mean of all adapters is of none: "
                    "choose another method, or untrained_sessions = 'nearest'"
                )
            like = features_of(run, Path(run.config["data"]["root"]), sessions[0])
        self._recalibrator.begin(adapter_of(run.params, entry), like)

    @property
    def adapter(self) -> Adapter:
        """As it is after the sentences so far."""
        return self._recalibrator.adapter

    def result(self) -> tuple[Adapter, str]:
        """The adapter after a last check, of the sentences since the one before; and the checks.

        `recalibration.adapter.with_session` puts it into a run.
        """
        adapter = self._recalibrator.result()
        undone, checks = self._recalibrator.taken_back, self._recalibrator.checks
        return adapter, f"{undone} of {checks} checks took steps back"

    def learn(self, features: Float32[np.ndarray, "bins channels"] | None, missing: int) -> Learned:
        """Takes one step, unless the sentence is unfit for it.

        Args:
            features: that the model was given, or None where there were too many.
            missing: values of them that are none, but the mean in their place.
        """
        if features is None:
            return _unfit(f"it is longer than {LONGEST:g} s")
        if not len(features):
            return _unfit("it has no bins")
        if missing:
            return _unfit(f"{missing:,} of its values are missing")
        start = time.perf_counter()
        update = self._recalibrator(features)
        seconds = round(time.perf_counter() - start, 4)
        return Learned(update.loss, update.taken_back, update.unused, seconds)


def _unfit(why: str) -> Learned:
    return Learned(None, False, why, 0.0)
