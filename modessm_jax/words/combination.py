"""Combining the n-best lists of several systems: seeds, models, or one model's noisy inputs.

Hypotheses are normalised as by the benchmarks (`modessm_jax.text.normalize`), and so is the result.
An empty hypothesis counts like any other.

Ties are broken alike by both rules, and never by chance. Of sentences with equally many votes, or
equally small risk, the one is taken that needs the fewest edits to become the others: of words,
then of letters, each other hypothesis counted with its weight. If that is equal too, the earlier
hypothesis is taken.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64
from rapidfuzz import process
from rapidfuzz.distance import Levenshtein
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp, softmax

from modessm_jax.data.recordings import Key, describe
from modessm_jax.text import normalize, word_edits
from modessm_jax.words.nbest import Utterance

# Sums of the same weights in another order differ in their last digits, but are ties.
_DIGITS = 9
_SCALES = (1e-3, 1e2)

Numbers = Sequence[float | int] | np.ndarray
Rule = Callable[[Sequence[str], Numbers | None], str]


def vote(hypotheses: Sequence[str], weights: Numbers | None = None) -> str:
    """The sentence with the most votes.

    Args:
        hypotheses: at least one.
        weights: votes of each, at least 0; all the same if not given. A hypothesis of weight 0
            is left out.

    Raises:
        ValueError: there is no hypothesis, or the weights do not fit.
    """
    shares = _count(hypotheses, weights)
    return _first(shares, -np.array(list(shares.values())))


def minimum_bayes_risk(hypotheses: Sequence[str], weights: Numbers | None = None) -> str:
    """The hypothesis with the fewest expected word edits against the true sentence.

    The posterior probability of each hypothesis is its share of the weights; edits are counted by
    Levenshtein distance between words (V. Goel & W. Byrne, "Minimum Bayes-risk automatic speech
    recognition", Computer Speech & Language 14, 2000).

    Arguments and errors are those of `vote`.
    """
    return _first(_count(hypotheses, weights))


def posterior(totals: Numbers, scale: float) -> Float64[np.ndarray, "candidates"]:
    """Probabilities of an n-best list's candidates: the softmax of `scale` times their totals.

    Totals of a search differ by too much, because its frames are not independent: `calibrate` finds
    the scale. At 0 all candidates are equally likely; an infinite scale gives all to the best.
    """
    scores = np.asarray(totals, np.float64)
    if np.isinf(scale):  # infinity times 0 is not a number
        return (scores == scores.max()) / (scores == scores.max()).sum()
    return softmax(scale * scores)


def calibrate(utterances: Iterable[Utterance], references: dict[Key, str]) -> float:
    """The scale of `posterior` that makes the candidates with the fewest errors most likely.

    Those are the ones with the fewest word edits against the reference: the reference itself where
    the list holds it. Maximum likelihood in one dimension, so that a hundred sentences suffice. Use
    it on validation sentences only.

    Raises:
        ValueError: no list has candidates with different numbers of errors, or a trial has no
            reference.
    """
    lists = [_totals_and_wins(one, references) for one in utterances if one.candidates]
    lists = [(totals, wins) for totals, wins in lists if not wins.all()]
    if not lists:
        raise ValueError("calibration needs n-best lists with candidates of different word errors")
    longest = max(len(totals) for totals, _ in lists)
    totals = np.full((len(lists), longest), -np.inf)
    wins = np.zeros(totals.shape, bool)
    for row, (of_list, best_of_list) in enumerate(lists):
        totals[row, : len(of_list)] = of_list - of_list.max()
        wins[row, : len(of_list)] = best_of_list

    def nats(log_scale: float) -> float:
        """The mean negative log-probability of the candidates with the fewest errors."""
        scaled = np.exp(log_scale) * totals
        won = logsumexp(np.where(wins, scaled, -np.inf), axis=1)
        return float(np.mean(logsumexp(scaled, axis=1) - won))

    best: Any = minimize_scalar(nats, bounds=np.log(_SCALES), method="bounded")
    return float(np.exp(best.x))


def combine(
    systems: Sequence[Iterable[Utterance]],
    rule: Rule = minimum_bayes_risk,
    *,
    scales: Numbers | None = None,
) -> dict[Key, str]:
    """One sentence for every trial, out of the n-best lists of several systems.

    Args:
        systems: the lists of each seed, model or noisy copy, of the same trials in any order. An
            empty list is left out; if all are empty, the sentence is empty.
        rule: `vote` or `minimum_bayes_risk`.
        scales: of each system's `posterior`, from `calibrate`; if not given, only the best
            candidates count.

    Raises:
        ValueError: there is no system, a trial is missing or occurs twice in one of them, or there
            are too few or too many scales.
    """
    tables = [_by_key(number, system) for number, system in enumerate(systems, 1)]
    if not tables:
        raise ValueError("there are no systems to combine; give at least one list of utterances")
    scales = [np.inf] * len(tables) if scales is None else scales
    if len(scales) != len(tables):
        raise ValueError(f"{len(scales)} scales for {len(tables)} systems; give one for each")
    for number, table in enumerate(tables, 1):
        for key in sorted(tables[0].keys() ^ table.keys()):
            lacking = number if key in tables[0] else 1
            raise ValueError(
                f"system {lacking} has no {describe(key)}; decode the same trials with all of them"
            )
    return {key: _pool([table[key] for table in tables], rule, scales) for key in tables[0]}


def _pool(lists: Sequence[Utterance], rule: Rule, scales: Numbers) -> str:
    hypotheses: list[str] = []
    shares: list[float] = []
    for found, scale in zip(lists, scales, strict=True):
        if found.candidates:
            hypotheses += [one.text for one in found.candidates]
            shares += posterior([one.total for one in found.candidates], scale).tolist()
    return rule(hypotheses, shares) if hypotheses else ""


def _by_key(number: int, system: Iterable[Utterance]) -> dict[Key, Utterance]:
    table: dict[Key, Utterance] = {}
    for utterance in system:
        if utterance.key in table:
            raise ValueError(f"{describe(utterance.key)} occurs twice in system {number}")
        table[utterance.key] = utterance
    return table


def _totals_and_wins(
    utterance: Utterance, references: dict[Key, str]
) -> tuple[Float64[np.ndarray, "candidates"], Bool[np.ndarray, "candidates"]]:
    """The totals of the candidates, and which of them have the fewest errors."""
    if utterance.key not in references:
        raise ValueError(
            f"{describe(utterance.key)} has no reference; calibrate on the validation split"
        )
    reference = references[utterance.key]
    errors = np.array([word_edits(reference, one.text).count for one in utterance.candidates])
    totals = np.array([one.total for one in utterance.candidates], np.float64)
    return totals, errors == errors.min()


def _count(hypotheses: Sequence[str], weights: Numbers | None) -> dict[str, float]:
    """Different sentences, in the order they first occur, and the share of the weight of each."""
    if not hypotheses:
        raise ValueError("there are no hypotheses to choose from; give at least one")
    values = np.ones(len(hypotheses)) if weights is None else np.asarray(weights, np.float64)
    if values.shape != (len(hypotheses),):
        raise ValueError(f"{values.size} weights for {len(hypotheses)} hypotheses; give one each")
    if not np.isfinite(values).all() or values.min() < 0 or not values.any():
        raise ValueError(f"weights {values.tolist()}: give finite ones of at least 0, not all 0")
    shares: dict[str, float] = {}
    for hypothesis, value in zip(hypotheses, values / values.sum(), strict=True):
        if value:
            sentence = normalize(hypothesis)
            shares[sentence] = shares.get(sentence, 0.0) + value
    return shares


def _first(shares: dict[str, float], *costs: Float64[np.ndarray, "sentences"]) -> str:
    """The sentence of least cost; then of least word risk, least letter risk, and the earliest."""
    sentences, weights = list(shares), np.array(list(shares.values()))

    def risk(sequences: Sequence[Any]) -> Float64[np.ndarray, "sentences"]:
        """Expected edits between each sequence and one drawn with probability `weights`."""
        distance = Levenshtein.distance
        return process.cdist(sequences, sequences, scorer=distance, dtype=np.int32) @ weights

    costs = (*costs, risk([sentence.split() for sentence in sentences]), risk(sentences))
    # np.lexsort takes the last key first, and is stable.
    return sentences[int(np.lexsort([cost.round(_DIGITS) for cost in costs[::-1]])[0])]
