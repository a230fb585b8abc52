"""The results of a search for words, counted in all and in groups of sentences.

Rates are fractions. The word error rate is the sum of edits over the sum of reference words.
"""

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Container, Sequence
from functools import cached_property
from itertools import zip_longest
from typing import Any

from rapidfuzz.distance import Levenshtein

from modessm_jax.data.recordings import Key, describe
from modessm_jax.evaluation.posteriors import Posterior
from modessm_jax.text import Edits, bootstrap_interval, mean_rate, normalize, total, word_edits
from modessm_jax.words.decoder import Found
from modessm_jax.words.nbest import Candidate, Utterance

NO_SENTENCES = "this split has no sentences to compare with: predictions only, no error rates"
GREEDY = "greedy words"
SEEN = "seen in training"


@dataclasses.dataclass(frozen=True)
class WordResult:
    """One trial: the hypotheses of the search, and the words of its greedy phonemes.

    `seen` tells whether the model or the n-gram was trained on its sentence.
    """

    trial: Posterior
    found: Found
    greedy: str
    seen: bool

    @property
    def text(self) -> str:
        """The best sentence."""
        return " ".join(self.found.hypotheses[0].words)

    @cached_property
    def reference(self) -> str:
        """The reference sentence, normalised.

        Raises:
            ValueError: the split has no sentences.
        """
        if self.trial.sentence is None:
            raise ValueError(f"{self.trial.name}: {NO_SENTENCES}")
        return normalize(self.trial.sentence)

    @cached_property
    def edits(self) -> Edits:
        """Word edits of the best sentence."""
        return word_edits(self.reference, self.text)

    @cached_property
    def oracle_edits(self) -> Edits:
        """Word edits of the hypothesis in the n-best list that has the fewest."""
        each = (word_edits(self.reference, " ".join(h.words)) for h in self.found.hypotheses)
        return min(each, key=lambda edits: edits.count)

    @property
    def utterance(self) -> Utterance:
        """The n-best list, ready for a file."""
        candidates = (
            Candidate(" ".join(h.words), h.acoustic, h.lm, h.total) for h in self.found.hypotheses
        )
        return Utterance(*self.trial.key, tuple(candidates))


@dataclasses.dataclass(frozen=True)
class WordEvaluation:
    """Results of one split, trials in the order of the recordings.

    Attributes:
        split: "train", "val" or "test".
        results: of every trial.
        lexicon: the words that can be recognised.
        notes: lines to print beneath the figures, on how they came about.
    """

    split: str
    results: list[WordResult]
    lexicon: Container[str]
    notes: tuple[str, ...] = ()

    @cached_property
    def scored(self) -> list[WordResult]:
        """The results that have a sentence to compare with."""
        return [result for result in self.results if result.trial.sentence is not None]

    @property
    def labelled(self) -> bool:
        """Whether there is anything to compare with."""
        return bool(self.scored)

    @property
    def without_sentence(self) -> list[Key]:
        """The trials that have none."""
        return [result.trial.key for result in self.results if result.trial.sentence is None]

    @property
    def frames_a_second(self) -> float:
        """How many frames one core searches in a second, the model left out."""
        frames = sum(len(result.trial.frames) for result in self.results)
        return frames / sum(result.found.seconds for result in self.results)

    @cached_property
    def out_of_vocabulary(self) -> Counter[str]:
        """Reference words the lexicon lacks, which can never be recognised, and how often."""
        words = (word for result in self.scored for word in result.reference.split())
        return Counter(word for word in words if word not in self.lexicon)

    @property
    def worst(self) -> list[WordResult]:
        """The sentences with any edits, those with the most first."""
        wrong = [result for result in self.scored if result.edits.count]
        return sorted(wrong, key=lambda result: (-result.edits.count, -result.edits.rate))

    @cached_property
    def confusions(self) -> Counter[tuple[str, str]]:
        """How often each pair of different words of `aligned` occurs."""
        pairs = (pair for result in self.scored for pair in aligned(result))
        return Counter(pair for pair in pairs if pair[0] != pair[1])

    def groups(self) -> dict[str, list[WordResult]]:
        """Scored sentences: all, seen in training and not, of every corpus, of every session."""
        either: dict[str, list[WordResult]] = {}
        corpora: defaultdict[str, list[WordResult]] = defaultdict(list)
        sessions: defaultdict[str, list[WordResult]] = defaultdict(list)
        for name, known in ((SEEN, True), ("unseen", False)):
            if members := [result for result in self.scored if result.seen == known]:
                either[name] = members
        known = any(result.trial.corpus is not None for result in self.scored)
        for result in self.scored:
            sessions[result.trial.key[0]].append(result)
            if known:
                corpora[result.trial.corpus or "unknown"].append(result)
        return {"all": self.scored, **either, **dict(sorted(corpora.items())), **sessions}

    def figures(self) -> dict[str, dict[str, Any]]:
        """The row of every group, after that of the greedy words on all sentences.

        Raises:
            ValueError: no trial has a sentence.
        """
        if not self.labelled:
            raise ValueError(f"{self.split}: {NO_SENTENCES}")
        greedy = [word_edits(result.reference, result.greedy) for result in self.scored]
        rows = {GREEDY: _figures(greedy)}
        for name, results in self.groups().items():
            rows[name] = _figures([result.edits for result in results])
            rows[name]["oracle_wer"] = _rate(total(result.oracle_edits for result in results))
        return rows

    def to_dict(self) -> dict[str, Any]:
        """All figures, ready for JSON."""
        facts = {
            "split": self.split,
            "sentences": len(self.results),
            "frames_a_second": self.frames_a_second,
            "notes": list(self.notes),
        }
        if not self.labelled:
            return {**facts, "note": NO_SENTENCES}
        missing = dict(self.out_of_vocabulary.most_common())
        facts["without_sentence"] = list(map(describe, self.without_sentence))
        return {**facts, "out_of_vocabulary": missing, "groups": self.figures()}


def aligned(result: WordResult) -> list[tuple[str, str]]:
    """Pairs of (reference, decoded) words of one cheapest alignment; "" where there is none."""
    reference, decoded = result.reference.split(), normalize(result.text).split()
    pairs: list[tuple[str, str]] = []
    for op in Levenshtein.opcodes(reference, decoded):
        source = reference[op.src_start : op.src_end]
        target = decoded[op.dest_start : op.dest_end]
        pairs += zip_longest(source, target, fillvalue="")
    return pairs


def _figures(sentences: Sequence[Edits]) -> dict[str, Any]:
    edits = total(sentences)
    measured = [each for each in sentences if each.reference_length]
    return {
        "sentences": len(sentences),
        "words": edits.reference_length,
        "wer": _rate(edits),
        "interval": list(bootstrap_interval(measured, seed=0)) if measured else None,
        "mean_of_sentences": mean_rate(measured) if measured else None,
        "sentence_error_rate": sum(each.count > 0 for each in sentences) / len(sentences),
        "substitutions": edits.substitutions,
        "insertions": edits.insertions,
        "deletions": edits.deletions,
    }


def _rate(edits: Edits) -> float | None:
    return edits.rate if edits.reference_length else None
