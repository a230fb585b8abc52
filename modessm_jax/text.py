"""Error rates of phonemes and words, as the Brain-to-Text benchmarks count them.

A rate is the sum of the edits of all sentences over the sum of their reference lengths; the mean of
sentence rates is another number and is named so. Rates are fractions; `percent` prints them.
"""

import re
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from rapidfuzz.distance import Levenshtein

from modessm_jax.phonemes import SILENCE


@dataclass(frozen=True)
class Edits:
    """Counts of one cheapest way from references to hypotheses; addable over sentences."""

    substitutions: int = 0
    insertions: int = 0
    deletions: int = 0
    reference_length: int = 0

    def __add__(self, other: "Edits") -> "Edits":
        return Edits(
            self.substitutions + other.substitutions,
            self.insertions + other.insertions,
            self.deletions + other.deletions,
            self.reference_length + other.reference_length,
        )

    @property
    def count(self) -> int:
        """Substitutions, insertions and deletions together."""
        return self.substitutions + self.insertions + self.deletions

    @property
    def rate(self) -> float:
        """Edits per reference token (a fraction, above 1 where insertions abound).

        Raises:
            ValueError: there are no reference tokens to divide by.
        """
        if self.reference_length == 0:
            raise ValueError("an error rate needs a reference token; score labelled data")
        return self.count / self.reference_length


def edits(reference: Sequence[Hashable], hypothesis: Sequence[Hashable]) -> Edits:
    """Levenshtein edits that turn `reference` into `hypothesis`."""
    tags = [tag for tag, _, _ in Levenshtein.editops(reference, hypothesis).as_list()]
    counts = (tags.count("replace"), tags.count("insert"), tags.count("delete"))
    return Edits(*counts, reference_length=len(reference))


def phoneme_edits(
    reference: Iterable[Any], hypothesis: Iterable[Any], *, silence: bool = True
) -> Edits:
    """Edits between phoneme ids, without padding or blanks.

    The benchmarks count silence (id 40) as a phoneme; `silence=False` leaves it out of both sides.
    """
    kept = [
        [int(i) for i in sequence if silence or i != SILENCE]
        for sequence in (reference, hypothesis)
    ]
    return edits(*kept)


def word_edits(reference: str, hypothesis: str) -> Edits:
    """Edits between the words of two sentences, both normalised first."""
    return edits(normalize(reference).split(), normalize(hypothesis).split())


def normalize(text: str) -> str:
    """The benchmarks' text: lower-case words of letters, hyphens and apostrophes, single spaces."""
    kept = re.sub(r"[^a-zA-Z\- ']", "", text).lower()
    kept = kept.replace("- ", " ").replace("--", "").replace(" '", "'")
    return " ".join(kept.split())


def total(sentences: Iterable[Edits]) -> Edits:
    """The edits of all sentences; its `rate` is the error rate the benchmarks report."""
    return sum(sentences, Edits())


def mean_rate(sentences: Sequence[Edits]) -> float:
    """The mean of the sentences' own error rates, in which short sentences weigh more.

    Raises:
        ValueError: there are no sentences, or one has no reference tokens.
    """
    if not sentences:
        raise ValueError("a mean error rate needs at least one sentence")
    return float(np.mean([sentence.rate for sentence in sentences]))


def bootstrap_interval(
    sentences: Sequence[Edits],
    *,
    seed: int,
    confidence: float = 0.95,
    resamples: int = 2000,
    against: Sequence[Edits] | None = None,
) -> tuple[float, float]:
    """Percentile interval of the aggregate error rate over resampled sentences.

    Sentences are drawn with replacement and the ratio of sums is taken anew in each resample
    (M. Bisani & H. Ney, "Bootstrap estimates for confidence intervals in ASR performance
    evaluation", ICASSP 2004). With `against`, another decoder's edits of the same sentences, it is
    the interval of the difference, ours less theirs, each sentence drawn for both.

    Raises:
        ValueError: no sentence has a reference token; or the other references are not the same.
    """
    counts = np.array([sentence.count for sentence in sentences], np.float64)
    lengths = np.array([sentence.reference_length for sentence in sentences], np.float64)
    if against is not None:
        if [sentence.reference_length for sentence in against] != lengths.tolist():
            raise ValueError("a paired bootstrap needs two decodings of the same sentences")
        counts -= [sentence.count for sentence in against]
    if not lengths.sum():
        raise ValueError("a bootstrap needs sentences with reference tokens; score labelled data")
    probabilities = np.full(len(sentences), 1 / len(sentences))
    draws = np.random.default_rng(seed).multinomial(len(sentences), probabilities, size=resamples)
    drawn_lengths = draws @ lengths
    # A resample of nothing but empty references has no rate.
    measured = drawn_lengths > 0
    rates = (draws @ counts)[measured] / drawn_lengths[measured]
    tail = (1 - confidence) / 2
    low, high = np.quantile(rates, [tail, 1 - tail])
    return float(low), float(high)


def percent(fraction: float | None) -> str:
    """A fraction as people read it: 0.0632 is "6.32 %", None is "-"."""
    return "-" if fraction is None else f"{100 * fraction:.2f} %"
