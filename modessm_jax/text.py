"""Sentences and error rates, as the Brain-to-Text benchmarks read and count them.

Two functions make words of a text. `normalize` is the benchmarks' own, for error rates and
submissions alone: it deletes every sign it does not know, a typographic apostrophe, a dash or a tab
too. `clean` is for all other text: what models, lexicons and labels are made of.

A rate is the sum of the edits of all sentences over the sum of their reference lengths; the mean of
the sentences' own rates is another number (`mean_rate`). Rates are fractions; `percent` formats
them.
"""

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from rapidfuzz.distance import Levenshtein

from modessm_jax.phonemes import SILENCE

_CONFIDENCE = 0.95
_RESAMPLES = 2000

# Typographic signs that stand for an apostrophe or a hyphen. Dashes stand between words.
_PLAIN = str.maketrans(
    dict.fromkeys("\u2018\u2019\u201b\u02bb\u02bc\u2032\u00b4`", "'")
    | dict.fromkeys("\u2010\u2011\u2212", "-")
)
_INITIALS = re.compile(r"\b([^\W\d_])\.(?=[^\W\d_]\b)")  # the first stop of u.s.
_BETWEEN = re.compile(r"[^\w'-]|_|-{2,}")
_QUOTED = re.compile(r"(?<![^ -])'([^' ][^']*(?:\w'\w[^']*)*)'(?!\w)")
_APART = re.compile(r" +'(?=(?:s|re|ve|ll|d|m|t)\b)")  # it 's
_SPOKEN = re.compile(r"[a-z'-]+")
_SHOWN = 20


@dataclass(frozen=True)
class Edits:
    """Edits that turn references into hypotheses, by kind; those of sentences can be added."""

    substitutions: int = 0
    insertions: int = 0
    deletions: int = 0
    reference_length: int = 0

    def __add__(self, other: "Edits") -> "Edits":
        return Edits(*map(sum, zip(vars(self).values(), vars(other).values(), strict=True)))

    @property
    def count(self) -> int:
        """Substitutions, insertions and deletions together."""
        return self.substitutions + self.insertions + self.deletions

    @property
    def rate(self) -> float:
        """Edits per reference token: a fraction, above 1 if there are many insertions.

        Raises:
            ValueError: there are no reference tokens to divide by.
        """
        if self.reference_length == 0:
            raise ValueError("an error rate needs a reference token; score labelled data")
        return self.count / self.reference_length


def edits(reference: Sequence[Hashable], hypothesis: Sequence[Hashable]) -> Edits:
    """The fewest edits that turn `reference` into `hypothesis` (Levenshtein)."""
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


def clean(text: str) -> str:
    """The words of a text, with single spaces: lower case, plain letters, digits, - and '.

    Typographic signs become plain and letters lose their accents; white space of any kind, dashes
    and all other signs part words. Quotation marks go. Of the 9,498 public sentences of T15 all but
    two, which hold a typographic apostrophe, come out as from `normalize`.
    """
    if not text.isascii():
        parts = unicodedata.normalize("NFKD", text.translate(_PLAIN))
        text = "".join(part for part in parts if unicodedata.category(part) not in ("Mn", "Cf"))
    text = _BETWEEN.sub(" ", _INITIALS.sub(r"\1", text.lower()))
    text = _QUOTED.sub(r"\1", _APART.sub("'", text))
    words = (word.strip("-") for word in text.split())
    return " ".join(word for word in words if word.strip("'"))


def spoken(text: str, left_out: Counter[str]) -> list[str]:
    """The words of a cleaned text that are spelt in letters; all others are counted.

    Nobody can look up how the others are spoken (`360`, `5pm`), and `normalize` deletes their
    signs.
    """
    words = clean(text).split()
    if not all(map(_SPOKEN.fullmatch, words)):
        left_out.update(word for word in words if not _SPOKEN.fullmatch(word))
        words = [word for word in words if _SPOKEN.fullmatch(word)]
    return words


def describe_left_out(words: Counter[str]) -> str:
    """What to say of the words that `spoken` counted."""
    return (
        f"{words.total():,} words with digits or letters of other alphabets are left out: "
        f"{named(words)}; write them as they are spoken"
    )


def named(words: Counter[str]) -> str:
    """The most frequent words, and how often each occurs."""
    shown = ", ".join(f"{word} ({count:,})" for word, count in words.most_common(_SHOWN))
    return shown + ", ..." * (len(words) > _SHOWN)


def total(sentences: Iterable[Edits]) -> Edits:
    """The edits of all sentences; its `rate` is the error rate the benchmarks report."""
    return sum(sentences, Edits())


def mean_rate(sentences: Sequence[Edits]) -> float:
    """The mean of the sentences' own error rates, which gives short sentences more weight.

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
    against: Sequence[Edits] | None = None,
) -> tuple[float, float]:
    """The 95 % bootstrap interval of the error rate over sentences.

    Sentences are drawn with replacement, and the error rate of each of 2000 resamples is computed
    as a ratio of sums (M. Bisani & H. Ney, "Bootstrap estimates for confidence intervals in ASR
    performance evaluation", ICASSP 2004). With `against`, another decoder's edits of the same
    sentences, it is the interval of the difference of the rates, the first minus the second, over
    the same resamples.

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
    draws = np.random.default_rng(seed).multinomial(len(sentences), probabilities, size=_RESAMPLES)
    drawn_lengths = draws @ lengths
    # A resample of nothing but empty references has no rate.
    measured = drawn_lengths > 0
    rates = (draws @ counts)[measured] / drawn_lengths[measured]
    tail = (1 - _CONFIDENCE) / 2
    low, high = np.quantile(rates, [tail, 1 - tail])
    return float(low), float(high)


def seen_sentences(sentences: Sequence[str], text: Iterable[str]) -> list[bool]:
    """For every sentence whether one line of a training text contains it, word for word.

    Both are cleaned first. Any large text contains short sentences; count those of five words or
    more to tell a leak from everyday phrases. A sentence without words counts as not seen.
    """
    wanted = [tuple(clean(sentence).split()) for sentence in sentences]
    # Sentences are looked up by their first two words, or their only one.
    by_opening: defaultdict[tuple[str, ...], set[tuple[str, ...]]] = defaultdict(set)
    for words in wanted:
        if words:
            by_opening[words[:2]].add(words)
    found: set[tuple[str, ...]] = set()
    for line in text:
        words = tuple(clean(line).split())
        for begin in range(len(words)):
            for opening in (words[begin : begin + 1], words[begin : begin + 2]):
                for candidate in by_opening.get(opening, ()):
                    if words[begin : begin + len(candidate)] == candidate:
                        found.add(candidate)
    return [words in found for words in wanted]


def percent(fraction: float | None) -> str:
    """Formats a fraction: 0.0632 as "6.32 %", None as "-"."""
    return "-" if fraction is None else f"{100 * fraction:.2f} %"
