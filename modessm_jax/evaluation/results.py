"""Results of an evaluation: every trial's, and the metrics of all of them together.

Rates are fractions. A rate over no reference phonemes is None, never 0.
"""

import dataclasses
import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Float32, Int64
from rapidfuzz.distance import Levenshtein

from modessm_jax.data.hdf5 import Trial
from modessm_jax.phonemes import BLANK, CLASSES
from modessm_jax.text import Edits, bootstrap_interval, phoneme_edits, total

NO_LABELS = "this split has no labels: predictions and counts only, no metrics"


@dataclasses.dataclass(frozen=True)
class TrialResult:
    """One trial: its greedy phonemes and, where it has labels, what they cost.

    `nats` is the CTC cost of the labels, and is 0 and counts for nothing where they cannot be
    aligned to the frames (`feasible` is False). Edits always count.
    """

    trial: Trial
    phonemes: list[int]
    frames: int
    nats: float
    feasible: bool
    rnnt: list[int] | None = None
    modes: list[float] | None = None

    @property
    def reference(self) -> list[int]:
        """The labels.

        Raises:
            ValueError: the split has none.
        """
        if self.trial.labels is None:
            raise ValueError(f"{self.trial.name}: {NO_LABELS}")
        return self.trial.labels.tolist()

    @cached_property
    def edits(self) -> Edits:
        """Edits against the labels, silence counted, as the benchmarks do."""
        return phoneme_edits(self.reference, self.phonemes)

    @cached_property
    def rnnt_edits(self) -> Edits:
        """Edits of the transducer's phonemes, silence counted."""
        return phoneme_edits(self.reference, self.rnnt or [])

    def prediction(self) -> dict[str, Any]:
        """The trial's names and its phoneme ids; the transducer's and modes if any."""
        found = {
            "session": self.trial.session,
            "block_num": self.trial.block,
            "trial_num": self.trial.number,
            "phonemes": self.phonemes,
            "rnnt_phonemes": self.rnnt,
            "modes": self.modes,
        }
        return {name: value for name, value in found.items() if value is not None}


@dataclasses.dataclass(frozen=True)
class Example:
    """One trial to look at. The arrays hold real bins and real frames only."""

    result: TrialResult
    features: Float32[np.ndarray, "bins channels"]
    probabilities: Float32[np.ndarray, "frames classes"]
    stride: int  # bins in a frame


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Results of one split, trials in the order of the recordings.

    `loss` is the phoneme CTC cost under the normalisation of training (None without labels).
    """

    split: str
    trials: list[TrialResult]
    loss: float | None
    example: Example
    seconds: float

    @property
    def labelled(self) -> bool:
        """Whether there is anything to measure against."""
        return self.trials[0].trial.labels is not None

    @property
    def infeasible(self) -> list[str]:
        """Names of the trials with too few frames for their labels; the loss leaves them out."""
        return [result.trial.name for result in self.trials if not result.feasible]

    @property
    def nonfinite(self) -> list[str]:
        """Names of the trials for which the model's output is not finite; nothing is decoded."""
        return [result.trial.name for result in self.trials if not math.isfinite(result.nats)]

    @cached_property
    def edits(self) -> Edits:
        """Of all trials; its `rate` is the phoneme error rate."""
        return total(result.edits for result in self.trials)

    @cached_property
    def interval(self) -> tuple[float, float] | None:
        """95 % bootstrap interval of the phoneme error rate, over trials."""
        if not self.edits.reference_length:
            return None
        return bootstrap_interval([result.edits for result in self.trials], seed=0)

    @cached_property
    def confusion(self) -> Int64[np.ndarray, "classes classes"]:
        """Counts of (reference, decoded) ids; row 0 holds insertions, column 0 deletions."""
        counts = np.zeros((CLASSES, CLASSES), np.int64)
        for result in self.trials:
            reference, decoded = result.reference, result.phonemes
            for op in Levenshtein.opcodes(reference, decoded):
                source = reference[op.src_start : op.src_end]
                target = decoded[op.dest_start : op.dest_end]
                # An insertion has no source and a deletion no target: the blank stands in.
                np.add.at(counts, (source or [BLANK], target or [BLANK]), 1)
        return counts

    def by_phoneme(self) -> list[tuple[int, int, float]]:
        """(id, occurrences, fraction not decoded right) of every phoneme there is, worst first."""
        rows = [
            (phoneme, int(count), float(1 - self.confusion[phoneme, phoneme] / count))
            for phoneme, count in enumerate(self.confusion.sum(axis=1))
            if phoneme != BLANK and count
        ]
        return sorted(rows, key=lambda row: -row[2])

    def scalars(self) -> dict[str, float]:
        """The metrics to log while training; empty without labels."""
        if self.loss is None:
            return {}
        figures = _figures(self.trials)
        names = ("per", "per_no_silence", "rnnt_per", "nats_per_label", "nats_per_frame")
        found = {name: float(figures[name]) for name in names if figures.get(name) is not None}
        return {"loss": self.loss, **found, "infeasible": float(len(self.infeasible))}

    def to_dict(self) -> dict[str, Any]:
        """All metrics, ready for JSON; predictions are not among them."""
        found = {
            "split": self.split,
            "labelled": self.labelled,
            "seconds": self.seconds,
            "nonfinite": self.nonfinite,
            **_figures(self.trials),
            "sessions": self._grouped(lambda trial: trial.session),
        }
        if not self.labelled:
            return {**found, "note": NO_LABELS}
        known = any(result.trial.corpus is not None for result in self.trials)
        return {
            **found,
            "loss": self.loss,
            "per_interval": None if self.interval is None else list(self.interval),
            "infeasible": self.infeasible,
            "corpora": self._grouped(lambda trial: trial.corpus or "unknown") if known else {},
            "confusion": self.confusion.tolist(),
        }

    def _grouped(self, name: Callable[[Trial], str]) -> dict[str, dict[str, Any]]:
        """A row of figures for each group of trials."""
        groups: dict[str, list[TrialResult]] = defaultdict(list)
        for result in self.trials:
            groups[name(result.trial)].append(result)
        return {group: _figures(groups[group]) for group in sorted(groups)}


def _figures(trials: Sequence[TrialResult]) -> dict[str, Any]:
    """Counts and, of labelled trials, metrics: ratios of sums, not means of ratios."""
    decoded = sum(len(result.phonemes) for result in trials)
    found = {"trials": len(trials), "decoded_phonemes": decoded}
    if trials[0].trial.labels is None:
        return found
    edits = total(result.edits for result in trials)
    without_silence = total(
        phoneme_edits(result.reference, result.phonemes, silence=False) for result in trials
    )
    feasible = [result for result in trials if result.feasible]
    nats = sum(result.nats for result in feasible)
    found |= {
        "reference_phonemes": edits.reference_length,
        "per": _ratio(edits.count, edits.reference_length),
        "per_no_silence": _ratio(without_silence.count, without_silence.reference_length),
        "substitutions": edits.substitutions,
        "insertions": edits.insertions,
        "deletions": edits.deletions,
        "nats_per_label": _ratio(nats, sum(len(result.reference) for result in feasible)),
        "nats_per_frame": _ratio(nats, sum(result.frames for result in feasible)),
    }
    if trials[0].rnnt is not None:
        of_rnnt = total(result.rnnt_edits for result in trials)
        found["rnnt_per"] = _ratio(of_rnnt.count, of_rnnt.reference_length)
    return found


def _ratio(numerator: int | float, denominator: int) -> float | None:
    return numerator / denominator if denominator else None
