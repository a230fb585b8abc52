"""Kneser-Ney against its definition, by hand and by brute force."""

import itertools
import math
from collections import Counter, defaultdict

import numpy as np
import pytest

from modessm_jax.language.arpa import END, START, UNKNOWN, BackoffModel
from modessm_jax.language.kneser_ney import discounts, train
from modessm_jax.language.ngram import NGram

TINY = [["a", "b"], ["a", "b"], [], ["a", "c"]]


def sentences(seed: int, count: int = 60, words: str = "abcdef") -> list[list[str]]:
    rng = np.random.default_rng(seed)
    skewed = 1 / np.arange(1, len(words) + 1)
    return [
        rng.choice(list(words), rng.integers(1, 7), p=skewed / skewed.sum()).tolist()
        for _ in range(count)
    ]


class Probability:
    """p(word | history) by the definition of a back-off model."""

    def __init__(self, model: BackoffModel):
        self.tables = [
            {
                tuple(model.words[i] for i in ids): (p, b)
                for ids, p, b in zip(o.ids.tolist(), o.log_probs, o.backoffs, strict=True)
            }
            for o in model.orders
        ]

    def __call__(self, word: str, history: tuple[str, ...]) -> float:
        ngram = (*history, word)
        if ngram in self.tables[len(history)]:
            return math.exp(self.tables[len(history)][ngram][0])
        backoff = self.tables[len(history) - 1].get(history, (0.0, 0.0))[1]
        return math.exp(backoff) * self(word, history[1:])


def histories(model: BackoffModel, length: int):
    words = [word for word in model.words if word not in (START, END)]
    for ends in itertools.product(words, repeat=length):
        yield ends
    for ends in itertools.product(words, repeat=length - 1):
        yield (START, *ends)


def test_a_bigram_by_hand():
    # Each word is preceded by one kind of word, the end by two: counts 1, 1, 1 and 2, of which
    # 0.5, 0.5, 0.5 and 1 are given to five words alike.
    probability = Probability(train(TINY, order=2))
    expected = {"a": 0.2, "b": 0.2, "c": 0.2, END: 0.3, UNKNOWN: 0.1}
    for word, p in expected.items():
        assert probability(word, ()) == pytest.approx(p)
    assert probability("b", ("a",)) == pytest.approx((2 - 1.0) / 3 + 0.5 * 0.2)
    assert probability("c", ("a",)) == pytest.approx((1 - 0.5) / 3 + 0.5 * 0.2)
    assert probability("a", ("a",)) == pytest.approx(0.5 * 0.2)
    assert probability("a", (START,)) == pytest.approx((3 - 1.5) / 3 + 0.5 * 0.2)


def test_discounts_by_hand():
    counts = np.repeat([1, 2, 3, 4, 9], [8, 4, 2, 1, 5])
    assert discounts(counts) == pytest.approx((0.5, 1.25, 2.0))
    assert discounts(np.array([1, 1, 2])) == (0.5, 1.0, 1.5)  # nothing occurs three times
    assert discounts(np.repeat([1, 2, 3, 4], [100, 1, 10, 1])) == (0.5, 1.0, 1.5)  # below 0


@pytest.mark.parametrize("order", [2, 3, 4])
def test_any_text_as_by_the_definition(order):
    text = sentences(seed=order, words="abcd")
    model = train(text, order)
    probability, reference = Probability(model), BruteForce(text, order)
    for history in histories(model, order - 1):
        for word in model.words:
            if word != START:
                expected = reference(word, history)
                assert probability(word, history) == pytest.approx(expected), history


class BruteForce:
    """Chen & Goodman's equations over dictionaries."""

    def __init__(self, text, order):
        raw = [Counter() for _ in range(order)]
        for sentence in text:
            marked = (START, *sentence, END)
            for n in range(1, order + 1):
                raw[n - 1].update(marked[i : i + n] for i in range(len(marked) - n + 1))
        self.counts = []
        for n in range(1, order + 1):
            if n < order:
                before = defaultdict(set)
                for ngram in raw[n]:
                    before[ngram[1:]].add(ngram[0])
                counts = {g: c if g[0] == START else len(before[g]) for g, c in raw[n - 1].items()}
            else:
                counts = dict(raw[n - 1])
            self.counts.append({g: c for g, c in counts.items() if g != (START,)})
        self.discounts = [(0.0, *discounts(np.array(list(c.values())))) for c in self.counts]
        self.vocabulary = len({word for s in text for word in s}) + 2

    def __call__(self, word, history):
        n = len(history) + 1
        counts, discount = self.counts[n - 1], self.discounts[n - 1]
        seen = [c for g, c in counts.items() if g[:-1] == history]
        lower = self(word, history[1:]) if history else 1 / self.vocabulary
        if not seen:
            return lower
        count = counts.get((*history, word), 0)
        left = sum(discount[min(c, 3)] for c in seen)
        return (count - discount[min(count, 3)] + left * lower) / sum(seen)


@pytest.mark.parametrize("prune", [0.0, 1e-3, 1e-2, 10.0])
@pytest.mark.parametrize("order", [2, 4])
def test_probabilities_sum_to_one_in_kenlm(order, prune, tmp_path):
    model = train(sentences(seed=9, words="abcd"), order, prune)
    model.write(tmp_path / "lm.arpa")
    ngram = NGram(tmp_path / "lm.arpa")
    for history in histories(model, order - 1):
        state = ngram.start()
        if history[0] != START:
            state, _ = ngram.extend(ngram.extend(state, "a")[0], "b")
        for word in history:
            if word != START:
                state, _ = ngram.extend(state, word)
        scores = [ngram.extend(state, word)[1] for word in model.words if word != START]
        assert np.exp(scores).sum() == pytest.approx(1, abs=1e-4)


def test_pruning_leaves_out_what_hardly_changes_the_distribution():
    text = sentences(seed=3)
    whole = train(text, order=2)
    probability = Probability(whole)
    ends = Counter(word for s in text for word in (START, *s))
    words = [word for word in whole.words if word != START]

    def loss(history: str, left_out: str) -> float:
        """The relative entropy between the model and the model without one bigram."""
        ids = {word: index for index, word in enumerate(whole.words)}
        bigrams = whole.orders[1].ids.tolist()
        seen = [w for w in words if [ids[history], ids[w]] in bigrams and w != left_out]
        p = {w: probability(w, (history,)) for w in words}
        lower = {w: probability(w, ()) for w in words}
        weight = (1 - sum(p[w] for w in seen)) / (1 - sum(lower[w] for w in seen))
        q = {w: p[w] if w in seen else weight * lower[w] for w in words}
        return ends[history] / sum(ends.values()) * sum(p[w] * math.log(p[w] / q[w]) for w in words)

    losses = {(a, b): loss(whole.words[a], whole.words[b]) for a, b in whole.orders[1].ids.tolist()}
    threshold = float(np.median(list(losses.values()))) + 1e-9
    pruned = train(text, order=2, prune=threshold)
    kept = {ngram for ngram, value in losses.items() if value >= threshold}
    assert 0 < len(kept) < len(losses)
    assert {tuple(ids) for ids in pruned.orders[1].ids.tolist()} == kept


def test_the_context_and_the_end_of_a_kept_ngram_are_kept():
    sizes = []
    for prune in (0.0, 1e-3, 3e-3, 1e-2):
        model = train(sentences(seed=5, count=200), order=3, prune=prune)
        bigrams = {tuple(ids) for ids in model.orders[1].ids.tolist()}
        assert {tuple(ids[:2]) for ids in model.orders[2].ids.tolist()} <= bigrams
        assert {tuple(ids[1:]) for ids in model.orders[2].ids.tolist()} <= bigrams
        sizes.append(sum(model.sizes))
    assert sizes == sorted(sizes, reverse=True) and sizes[0] > sizes[-1]


@pytest.mark.parametrize(
    ("text", "order", "prune", "words"),
    [
        (TINY, 1, 0.0, "order is 1"),
        (TINY, 7, 0.0, "order is 7"),
        (TINY, 2, -1.0, "prune is -1"),
        ([[], []], 2, 0.0, "no words"),
        ([["a", "<s>"]], 2, 0.0, "'<s>' stands among"),
    ],
)
def test_what_makes_no_model_is_refused(text, order, prune, words):
    with pytest.raises(ValueError, match=words):
        train(text, order, prune)
