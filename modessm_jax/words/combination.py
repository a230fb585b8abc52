"""One sentence out of many: over seeds, models, noisy copies of one model, or n-best lists.

Hypotheses count as the benchmarks read them (`modessm_jax.text.normalize`), and so does the result.
An empty hypothesis counts like any other: it says that nothing was said.

Both rules end ties alike, and never by chance. Of sentences with equally many votes, or equally
small risk, that one is taken which needs the fewest edits to become the others: of words, then of
letters, each other hypothesis counted with its weight; what is left goes to the earlier hypothesis.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64
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
            takes no part.

    Raises:
        ValueError: there is no hypothesis, or the weights do not fit.
    """
    ballot = _count(hypotheses, weights)
    return _first(ballot, -ballot.shares, _word_risk(ballot), _letter_risk(ballot))


def minimum_bayes_risk(hypotheses: Sequence[str], weights: Numbers | None = None) -> str:
    """The hypothesis with the fewest word edits expected if one of them is the truth.

    Levenshtein distance between words, the posterior probability of each hypothesis in proportion
    to its weight (V. Goel & W. Byrne, "Minimum Bayes-risk automatic speech recognition", Computer
    Speech & Language 14, 2000).

    Arguments and errors are those of `vote`.
    """
    ballot = _count(hypotheses, weights)
    return _first(ballot, _word_risk(ballot), _letter_risk(ballot))


def posterior(totals: Numbers, scale: float) -> Float64[np.ndarray, "candidates"]:
    """Probabilities of an n-best list's candidates: the softmax of `scale` times their totals.

    Scores of a search are too sure of themselves, since frames are not independent: `calibrate`
    finds the scale. At 0 all are alike; an infinite scale leaves the best alone.
    """
    scores = np.asarray(totals, np.float64)
    if np.isinf(scale):  # infinity times 0 is not a number
        return (scores == scores.max()) / (scores == scores.max()).sum()
    return softmax(scale * scores)


class Calibration(NamedTuple):
    """The scale that makes an n-best list's totals probabilities, and what it achieves."""

    scale: float
    nats: float  # mean negative log-probability of the best candidates a list holds


def calibrate(utterances: Iterable[Utterance], references: dict[Key, str]) -> Calibration:
    """The scale of `posterior` under which the least wrong candidates are the most likely.

    Least wrong are those with the fewest word edits against the reference: the reference itself
    where the list holds it. Maximum likelihood, in one dimension, so that a hundred sentences
    suffice. Use it on validation sentences only.

    Raises:
        ValueError: no list has candidates of which some are more wrong than others, or a trial has
            no reference.
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
        scaled = np.exp(log_scale) * totals
        won = logsumexp(np.where(wins, scaled, -np.inf), axis=1)
        return float(np.mean(logsumexp(scaled, axis=1) - won))

    best = minimize_scalar(nats, bounds=np.log(_SCALES), method="bounded")
    return Calibration(float(np.exp(best.x)), float(best.fun))


def combine(
    systems: Sequence[Iterable[Utterance]],
    rule: Rule = minimum_bayes_risk,
    *,
    scales: Numbers | None = None,
    weights: Numbers | None = None,
) -> dict[Key, str]:
    """One sentence for every trial, out of the n-best lists of several systems.

    Args:
        systems: for each seed, model or noisy copy its lists, of the same trials in any order. A
            list without candidates has no say; if none has any, the sentence is empty.
        rule: `vote` or `minimum_bayes_risk`.
        scales: of each system's `posterior`, from `calibrate`; if not given, only the best
            candidates count.
        weights: of each system, at least 0; all the same if not given. A system of weight 0 has no
            say.

    Raises:
        ValueError: there is no system, a trial is missing or occurs twice in one of them, or the
            scales or weights do not fit.
    """
    tables = [_by_key(number, system) for number, system in enumerate(systems, 1)]
    if not tables:
        raise ValueError("there are no systems to combine; give at least one list of utterances")
    scales = [np.inf] * len(tables) if scales is None else scales
    weights = [1.0] * len(tables) if weights is None else weights
    for name, values in (("scales", scales), ("weights", weights)):
        if len(values) != len(tables):
            raise ValueError(f"{len(values)} {name} for {len(tables)} systems; give one for each")
    _check(weights, "the systems' weights")
    for number, table in enumerate(tables, 1):
        for key in sorted(tables[0].keys() ^ table.keys()):
            lacking = number if key in tables[0] else 1
            raise ValueError(
                f"system {lacking} has no {describe(key)}; decode the same trials with all of them"
            )
    return {
        key: _pool([table[key] for table in tables], rule, scales, weights) for key in tables[0]
    }


def _pool(lists: Sequence[Utterance], rule: Rule, scales: Numbers, weights: Numbers) -> str:
    hypotheses: list[str] = []
    shares: list[float] = []
    for found, scale, weight in zip(lists, scales, weights, strict=True):
        if found.candidates and weight:
            probabilities = posterior([one.total for one in found.candidates], scale)
            hypotheses += [one.text for one in found.candidates]
            shares += (weight * probabilities).tolist()
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
) -> tuple[Float64[np.ndarray, "candidates"], np.ndarray]:
    """The totals of the candidates, and which of them are the least wrong."""
    if utterance.key not in references:
        raise ValueError(
            f"{describe(utterance.key)} has no reference; calibrate on the validation split"
        )
    reference = references[utterance.key]
    errors = np.array([word_edits(reference, one.text).count for one in utterance.candidates])
    totals = np.array([one.total for one in utterance.candidates], np.float64)
    return totals, errors == errors.min()


class _Ballot(NamedTuple):
    """Different sentences, in the order they first occur, and the share of the weight of each."""

    sentences: list[str]
    shares: Float64[np.ndarray, "sentences"]


def _count(hypotheses: Sequence[str], weights: Numbers | None) -> _Ballot:
    if not hypotheses:
        raise ValueError("there are no hypotheses to choose from; give at least one")
    values = np.ones(len(hypotheses)) if weights is None else np.asarray(weights, np.float64)
    if values.shape != (len(hypotheses),):
        raise ValueError(f"{values.size} weights for {len(hypotheses)} hypotheses; give one each")
    _check(values, "the hypotheses' weights")
    shares: dict[str, float] = {}
    for hypothesis, value in zip(hypotheses, values / values.sum(), strict=True):
        if value:
            sentence = normalize(hypothesis)
            shares[sentence] = shares.get(sentence, 0.0) + value
    return _Ballot(list(shares), np.array(list(shares.values())))


def _check(weights: Numbers, name: str) -> None:
    values = np.asarray(weights, np.float64)
    if not np.isfinite(values).all() or values.min() < 0 or not values.any():
        raise ValueError(f"{name} are {values.tolist()}; give finite ones of at least 0, not all 0")


def _word_risk(ballot: _Ballot) -> Float64[np.ndarray, "sentences"]:
    return _risk([sentence.split() for sentence in ballot.sentences], ballot.shares)


def _letter_risk(ballot: _Ballot) -> Float64[np.ndarray, "sentences"]:
    return _risk(ballot.sentences, ballot.shares)


def _risk(
    sequences: Sequence[str] | Sequence[list[str]], shares: Float64[np.ndarray, "sentences"]
) -> Float64[np.ndarray, "sentences"]:
    """Edits expected between each sequence and one drawn by its share."""
    distances = process.cdist(sequences, sequences, scorer=Levenshtein.distance, dtype=np.int32)
    return distances @ shares


def _first(ballot: _Ballot, *costs: Float64[np.ndarray, "sentences"]) -> str:
    """The sentence of least cost; each further cost decides what the ones before leave equal."""
    # np.lexsort takes the last key first, and is stable.
    return ballot.sentences[int(np.lexsort([cost.round(_DIGITS) for cost in costs[::-1]])[0])]
