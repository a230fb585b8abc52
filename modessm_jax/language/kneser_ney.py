"""N-gram models of a text: interpolated modified Kneser-Ney, pruned by relative entropy.

S. F. Chen & J. Goodman, "An empirical study of smoothing techniques for language modeling" (1999),
section 3, with the conventions of K. Heafield et al., "Scalable modified Kneser-Ney language model
estimation" (ACL 2013): n-grams that begin a sentence keep their counts, unigrams are interpolated
with the uniform distribution over the vocabulary and the unknown word.

Pruning is that of A. Stolcke, "Entropy-based pruning of backoff language models" (1998), with the
probability of a history taken from its count, which Kneser-Ney's lower orders do not estimate (C.
Chelba et al., "Study on interaction between entropy pruning and Kneser-Ney smoothing", Interspeech
2010).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int

from modessm_jax.language.arpa import END, START, UNKNOWN, BackoffModel, NGrams

_MARKS = (UNKNOWN, START, END)
_START, _END = _MARKS.index(START), _MARKS.index(END)

# KenLM's, for texts too small for counts of counts.
_FALLBACK_DISCOUNTS = (0.5, 1.0, 1.5)

# One array per order with one value per n-gram.
Values = list[np.ndarray]


@dataclass(frozen=True)
class Counts:
    """All n-grams of one order, one row each.

    `contexts` and `suffixes` are rows of the order below: the n-gram without its last and without
    its first word. For unigrams both are 0, the row of the empty n-gram.
    """

    words: Int[np.ndarray, "ngrams"]  # the last word
    contexts: Int[np.ndarray, "ngrams"]
    suffixes: Int[np.ndarray, "ngrams"]
    begins: Bool[np.ndarray, "ngrams"]  # whether the first word is <s>
    raw: Int[np.ndarray, "ngrams"]  # how often it occurs


def train(sentences: Iterable[Sequence[str]], order: int, prune: float = 0.0) -> BackoffModel:
    """Estimates a model with the vocabulary of the text and an unknown word.

    Args:
        sentences: words of each; empty ones are skipped.
        order: words of the longest n-grams, 2 to 6, which KenLM can read.
        prune: n-grams, longest first, are left out if that changes the model's relative entropy by
            less than this many nats per word; 1e-8 is mild. 0 keeps all.

    Raises:
        ValueError: the order is not in 2..6, the threshold is negative, there are no words, or one
            is a sentence mark.
    """
    if order not in range(2, 7):
        raise ValueError(f"order is {order}; it must be 2 to 6, which KenLM can read")
    if prune < 0:
        raise ValueError(f"prune is {prune}; it must be at least 0")
    words, tokens = _tokens(sentences)
    counts = count(tokens, len(words), order)
    probabilities, weights = _interpolate(counts)
    # Rounding may put a loss of 0 below 0.
    kept = _significant(counts, probabilities, weights, prune or -np.inf)
    return _model(words, counts, probabilities, _renormalize(counts, probabilities, kept), kept)


def _tokens(
    sentences: Iterable[Sequence[str]],
) -> tuple[tuple[str, ...], Int[np.ndarray, "tokens"]]:
    """The vocabulary, and the text as ids, every sentence between its marks."""
    ids = {word: index for index, word in enumerate(_MARKS)}
    tokens: list[int] = []
    for sentence in sentences:
        if not sentence:
            continue
        tokens.append(_START)
        tokens += [ids.setdefault(word, len(ids)) for word in sentence]
        tokens.append(_END)
        mark = next((word for word in sentence if word in _MARKS), None)
        if mark is not None:
            raise ValueError(f"{mark!r} stands among the words of a sentence; take it out")
    if not tokens:
        raise ValueError("the text has no words to count")
    return tuple(ids), np.array(tokens, np.int64)


def count(tokens: Int[np.ndarray, "tokens"], vocabulary: int, order: int) -> list[Counts]:
    """Counts the n-grams of orders 1 to `order`; a word's row among the unigrams is its id."""
    ids, zeros = np.arange(vocabulary), np.zeros(vocabulary, np.int64)
    raw = np.bincount(tokens, minlength=vocabulary)
    result = [Counts(ids, zeros, zeros, ids == _START, raw)]
    # The row of the n-gram that ends at each token; -1 where it would begin in an earlier sentence.
    row = tokens
    for _ in range(1, order):
        context = np.concatenate([[-1], row[:-1]])
        context[tokens == _START] = -1
        ends = np.flatnonzero(context >= 0)
        keys = context[ends] * vocabulary + tokens[ends]
        _, first, inverse, raw = np.unique(
            keys, return_index=True, return_inverse=True, return_counts=True
        )
        first = ends[first]
        contexts = context[first]
        begins = result[-1].begins[contexts]
        result.append(Counts(tokens[first], contexts, row[first], begins, raw))
        row = np.full(len(tokens), -1)
        row[ends] = inverse
    return result


def adjusted(counts: list[Counts], n: int) -> Int[np.ndarray, "ngrams"]:
    """Kneser-Ney's counts of order `n`: below the highest, how many words precede the n-gram."""
    here = counts[n - 1]
    if n == len(counts):
        adjusted = here.raw
    else:
        preceded = np.bincount(counts[n].suffixes, minlength=len(here.raw))
        adjusted = np.where(here.begins, here.raw, preceded)
    # The sentence start is given, never predicted.
    return np.where(here.words == _START, 0, adjusted)


def discounts(adjusted: Int[np.ndarray, "ngrams"]) -> tuple[float, float, float]:
    """Discounts of counts of 1, 2, and 3 or more (Chen & Goodman 1999, equation 17)."""
    of_count = np.bincount(np.minimum(adjusted, 5), minlength=6).astype(float)[1:5]
    if not of_count.all():
        return _FALLBACK_DISCOUNTS
    share = of_count[0] / (of_count[0] + 2 * of_count[1])
    one, two, three = (k - (k + 1) * share * of_count[k] / of_count[k - 1] for k in (1, 2, 3))
    if not (0 < one <= 1 and 0 < two <= 2 and 0 < three <= 3):
        return _FALLBACK_DISCOUNTS
    return one, two, three


def _interpolate(counts: list[Counts]) -> tuple[Values, Values]:
    """For every order the probabilities, and the back-off weights of its n-grams as contexts."""
    # All words but the sentence start can be predicted.
    below = np.array([1 / (len(counts[0].words) - 1)])
    probabilities, weights = [], []
    for n, here in enumerate(counts, 1):
        of_count = adjusted(counts, n)
        taken = np.array([0.0, *discounts(of_count)])[np.minimum(of_count, 3)]
        total = _sum(here.contexts, of_count, len(below))
        left = _sum(here.contexts, taken, len(below))
        # An n-gram that is no context, such as one that ends a sentence, has a weight of 1.
        weight = np.divide(left, total, out=np.ones(len(below)), where=total > 0)
        share = (of_count - taken) / total[here.contexts]
        below = share + weight[here.contexts] * below[here.suffixes]
        probabilities.append(below)
        weights.append(weight)
    probabilities[0][_START] = 0.0
    return probabilities, [*weights[1:], np.ones(len(below))]


def _significant(
    counts: list[Counts], probabilities: Values, weights: Values, threshold: float
) -> Values:
    """Which n-grams to keep: unigrams, those that change the entropy, and parts of kept ones."""
    kept = [np.ones(len(here.words), bool) for here in counts]
    predicted = counts[0].raw.sum() - counts[0].raw[_START]
    for n in range(len(counts), 1, -1):
        here, below = counts[n - 1], len(counts[n - 2].words)
        p, q = probabilities[n - 1], probabilities[n - 2][here.suffixes]
        weight = weights[n - 2][here.contexts]
        unseen = 1 - _sum(here.contexts, q, below)[here.contexts]
        # The back-off weight without this n-gram, and the relative entropy between the two models.
        without = (weight * unseen + p) / (unseen + q)
        loss = p * np.log(p / (q * without)) + weight * unseen * np.log(weight / without)
        history = _sum(here.contexts, here.raw, below)[here.contexts] / predicted
        kept[n - 1] = history * loss >= threshold
        if n < len(counts):
            # Back-off weights need the contexts; KenLM copes with only a few missing suffixes.
            kept[n - 1][counts[n].contexts[kept[n]]] = True
            kept[n - 1][counts[n].suffixes[kept[n]]] = True
    return kept


def _renormalize(counts: list[Counts], probabilities: Values, kept: Values) -> Values:
    """The back-off weights with which the probabilities sum to one after pruning."""
    weights = []
    below = probabilities[0]
    for here, p, stays in zip(counts[1:], probabilities[1:], kept[1:], strict=True):
        contexts, q = here.contexts[stays], below[here.suffixes]
        left = 1 - _sum(contexts, p[stays], len(below))
        weight = left / (1 - _sum(contexts, q[stays], len(below)))
        below = np.where(stays, p, weight[here.contexts] * q)
        weights.append(weight)
    return [*weights, np.ones(len(below))]


def _model(
    words: tuple[str, ...],
    counts: list[Counts],
    probabilities: Values,
    weights: Values,
    kept: Values,
) -> BackoffModel:
    orders = []
    ids = np.zeros((1, 0), np.int32)
    for here, p, weight, stays in zip(counts, probabilities, weights, kept, strict=True):
        ids = np.concatenate([ids[here.contexts], here.words[:, None].astype(np.int32)], axis=1)
        log_probs = np.log(p[stays], out=np.full(stays.sum(), -np.inf), where=p[stays] > 0)
        orders.append(NGrams(ids[stays], log_probs, np.log(weight[stays])))
    return BackoffModel(words, tuple(orders))


def _sum(rows: np.ndarray, values: np.ndarray, size: int) -> np.ndarray:
    return np.bincount(rows, values, size)
