"""The hypotheses of a transducer's word search, and how one step extends them.

One more arc for every hypothesis: a blank, which moves on to the next frame, or a label of the
tree. See `transducer_search` for what is searched, and its sources.
"""

import heapq
import math
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from modessm_jax.decoding.transducer import Transducer, select
from modessm_jax.language.lexicon import BETWEEN, NO_WORD, START, PronunciationTree
from modessm_jax.language.ngram import NGramStates
from modessm_jax.phonemes import BLANK
from modessm_jax.search.options import LOG_ZERO, SearchOptions

_NOWHERE = -1


@partial(jax.jit, static_argnums=(0, 1))
def _begin(transducer: Transducer, rows: int) -> Any:
    """The predictor's state before the first label."""
    return transducer.start(rows)


@partial(jax.jit, static_argnums=0)
def _scores(
    transducer: Transducer, memory: Any, parent: Any, label: Any, frame: Any, penalty: Any
) -> tuple[Any, Any]:
    """The predictor's state after one more label or none, and log-probabilities of what follows."""
    old = jax.tree.map(lambda leaf: leaf[parent], memory)
    memory = select(label != BLANK, transducer.advance(old[0], label), old)
    scores = transducer.joint(frame, memory[1])
    rest = jnp.log1p(jnp.exp(scores[:, BLANK]) * (1 / penalty - 1))
    scores = scores.at[:, BLANK].add(-jnp.log(penalty)) - rest[:, None]
    return memory, jnp.maximum(scores, LOG_ZERO)


class Live(NamedTuple):
    """Hypotheses that the search extends, `[hypotheses]` each."""

    history: Any  # number of the sequence of arcs taken
    parent: Any  # number of the same sequence without its last arc
    arc: Any  # the last one
    node: Any  # of the tree
    labels: Any  # how many were emitted
    words: Any  # how many have ended
    state: Any  # of the n-gram, as a number
    prior: Any  # log-probability of the words
    score: Any  # log-probability of all alignments so far
    best: Any  # that of the most likely alignment
    emitted: Any  # [hypotheses, labels, 2], frame and score of each label on that alignment

    def at(self, chosen: Any) -> "Live":
        return Live(*(field[chosen] for field in self))


class Ended(NamedTuple):
    """A hypothesis that has left the last frame, and the word that ends there."""

    total: float
    acoustic: float
    lm: float
    history: int
    word: int
    emitted: Any


class Beam:
    """The hypotheses of one trial, whose frames may still be arriving."""

    def __init__(
        self,
        transducer: Transducer,
        tree: PronunciationTree,
        ngram: NGramStates,
        options: SearchOptions,
    ):
        self.transducer, self.tree, self.ngram, self.options = transducer, tree, ngram, options
        self.frames: np.ndarray | None = None  # the first `count` are filled
        self.count, self.taken, self.complete = 0, 0, False
        self.numbers: dict[tuple[int, int], int] = {}
        self.path = [(_NOWHERE, _NOWHERE)]
        self.ended: list[Ended] = []
        self.unfinished: list[Ended] = []
        self.reached = -math.inf  # by the best that has ended
        self.live = Live(
            history=np.zeros(1, np.int64),
            parent=np.full(1, _NOWHERE),
            arc=np.full(1, _NOWHERE),
            node=np.full(1, START),
            labels=np.zeros(1, np.int64),
            words=np.zeros(1, np.int64),
            state=np.zeros(1, np.int64),
            prior=np.zeros(1),
            score=np.zeros(1),
            best=np.zeros(1),
            emitted=np.zeros((1, 0, 2)),
        )
        self.memory = _begin(transducer, options.beam)
        # The row each hypothesis extends, and its last label (blank: none), for the predictor.
        self.before = np.zeros(1, np.int32), np.full(1, BLANK, np.int32)

    def add(self, frames: Float[np.ndarray, "frames d"]) -> None:
        """Takes the next frames, and goes on as far as they allow."""
        total = self.count + len(frames)
        before = frames[:0] if self.frames is None else self.frames
        self.frames = _with_room(before, total, axis=0)
        self.frames[self.count : total] = frames
        self.count = total
        while self.ready():
            self.step()

    def finish(self) -> None:
        """Goes on to the end: no more frames will come."""
        self.complete = True
        while len(self.live.score):
            self.step()

    def ready(self) -> bool:
        """Whether a step would be the same if more frames followed.

        A frame may be the last, and a hypothesis has no more labels than there are frames.
        """
        foremost = self.taken - self.live.labels.min()
        return bool(foremost < self.count - 1 and self.live.labels.max() < self.count)

    def step(self) -> None:
        """One more arc for every hypothesis."""
        frame = self.taken - self.live.labels
        self.taken += 1
        most = int(self.live.labels.max()) + 1
        self.live = self.live._replace(emitted=_with_room(self.live.emitted, most, axis=1))
        scores = self.scores(frame)
        leaves = self.complete & (frame == self.count - 1)
        by_blank = self.live.score + scores[:, BLANK], self.live.best + scores[:, BLANK]
        for row in np.flatnonzero(leaves):
            self.end(int(row), float(by_blank[0][row]))
        self.extend(frame, leaves, scores, *by_blank)

    def scores(self, frame: Int[np.ndarray, "live"]) -> Float[np.ndarray, "live classes"]:
        """Log-probabilities of what follows each hypothesis."""
        assert self.frames is not None
        parent, label, frames = (
            _padded(each, self.options.beam) for each in (*self.before, self.frames[frame])
        )
        penalty = np.asarray(self.options.blank_penalty, frames.dtype)
        given = self.memory, parent, label, frames, penalty
        self.memory, scores = _scores(self.transducer, *given)
        scores = np.asarray(scores)[: len(frame)].astype(np.float64)
        if np.isnan(scores).any():
            raise ValueError("the joint network gives NaN; look for what diverged in training")
        return scores

    def end(self, row: int, score: float) -> None:
        """Ends a hypothesis at the last frame, as each sentence that its labels may spell."""
        node, state = int(self.live.node[row]), int(self.live.state[row])
        words, prior = int(self.live.words[row]), float(self.live.prior[row])

        def ended(word: int) -> Ended:
            after, lm = (state, 0.0) if word == NO_WORD else self.ngram.extend(state, word)
            lm = prior + lm + self.ngram.end(after)
            total = self.options.total(score, lm, words + (word != NO_WORD))
            emitted = self.live.emitted[row].copy()
            return Ended(total, score, lm, int(self.live.history[row]), word, emitted)

        last = [NO_WORD] if node in (START, BETWEEN) else self.tree.words(node)
        if not last:
            self.unfinished.append(ended(NO_WORD))
        for word in last:
            self.ended.append(ended(word))
            self.reached = max(self.reached, self.ended[-1].total)

    def extend(
        self,
        frame: Int[np.ndarray, "live"],
        leaves: Bool[np.ndarray, "live"],
        scores: Float[np.ndarray, "live classes"],
        score: Float[np.ndarray, "live"],
        best: Float[np.ndarray, "live"],
    ) -> None:
        """Keeps the best of the hypotheses that took a blank (`score`, `best`) or a label."""
        live, tree = self.live, self.tree
        first = tree.first[live.node]
        size = np.where(live.labels < self.count, tree.first[live.node + 1] - first, 0)
        source = np.repeat(np.arange(len(size)), size)
        start = np.cumsum(size) - size
        arc = np.arange(len(source)) + np.repeat(first - start, size)
        of_label = scores[source, tree.label[arc]]
        by_label, best_by_label = live.score[source] + of_label, live.best[source] + of_label

        # A label may lead to the labels that another hypothesis already has and takes a blank with.
        rows, parents = _find(live.parent, live.history)
        same = start[parents] + live.arc[rows] - first[parents]
        better = best_by_label[same] > best[rows]
        heirs, source_of = rows[better], parents[better]
        emitted = live.emitted.copy()
        emitted[heirs] = live.emitted[source_of]
        last = np.stack([frame[source_of], of_label[same[better]]], axis=1)
        emitted[heirs, live.labels[source_of]] = last
        score[rows] = np.logaddexp(score[rows], by_label[same])
        best[rows] = np.maximum(best[rows], best_by_label[same])
        by_label[same] = -np.inf
        score[leaves] = -np.inf

        state, prior = live.state[source], live.prior[source]
        word = tree.word[arc]
        for place in np.flatnonzero(word != NO_WORD):
            state[place], more = self.ngram.extend(int(state[place]), int(word[place]))
            prior[place] += more
        target = tree.target[arc]
        words = live.words[source] + (word != NO_WORD)
        total = self.options.total
        ranked_by_blank = total(score, live.prior + tree.ahead[live.node], live.words)
        ranked_by_label = total(by_label, prior + tree.ahead[target], words)
        kept = self.best_of(np.concatenate([ranked_by_blank, ranked_by_label]))

        stays, goes = kept[kept < len(size)], kept[kept >= len(size)] - len(size)
        same_labels = live._replace(score=score, best=best, emitted=emitted).at(stays)
        parent, arc = source[goes], arc[goes]
        emitted = live.emitted[parent]
        last = np.stack([frame[parent], of_label[goes]], axis=1)
        emitted[np.arange(len(goes)), live.labels[parent]] = last
        one_label_more = Live(
            history=self.number(live.history[parent], arc),
            parent=live.history[parent],
            arc=arc,
            node=target[goes],
            labels=live.labels[parent] + 1,
            words=words[goes],
            state=state[goes],
            prior=prior[goes],
            score=by_label[goes],
            best=best_by_label[goes],
            emitted=emitted,
        )
        self.live = Live(*map(np.concatenate, zip(same_labels, one_label_more, strict=True)))
        blanks = np.full(len(stays), BLANK)
        label = np.concatenate([blanks, tree.label[arc]]).astype(np.int32)
        self.before = np.concatenate([stays, parent]).astype(np.int32), label

    def best_of(self, ranked: Float[np.ndarray, "candidates"]) -> Int[np.ndarray, "kept"]:
        """Which candidates the beam keeps."""
        least = max(self.reached, ranked.max()) - self.options.beam_threshold
        kept = np.flatnonzero((ranked >= least) & (ranked > -np.inf))
        if len(kept) <= self.options.beam:
            return kept
        return kept[np.argsort(-ranked[kept], kind="stable")[: self.options.beam]]

    def number(
        self, before: Int[np.ndarray, "extended"], arc: Int[np.ndarray, "extended"]
    ) -> Int[np.ndarray, "extended"]:
        """The number of each history with one more arc; equal histories have equal numbers."""
        numbers = []
        for key in zip(before.tolist(), arc.tolist(), strict=True):
            number = self.numbers.setdefault(key, len(self.path))
            if number == len(self.path):
                self.path.append(key)
            numbers.append(number)
        return np.array(numbers, np.int64)

    def leader(self) -> tuple[int, Float[np.ndarray, "labels 2"]]:
        """The history of the best hypothesis, and what it emitted."""
        ahead = self.live.prior + self.tree.ahead[self.live.node]
        row = int(self.options.total(self.live.score, ahead, self.live.words).argmax())
        return int(self.live.history[row]), self.live.emitted[row]

    def results(self) -> list[Ended]:
        """What has ended, best first; inside a word only where nothing else was found."""
        return sorted(self.ended or self.unfinished, key=lambda each: -each.total)

    def common(self) -> int:
        """The number of the longest history that all hypotheses begin with."""
        newest_first = [-number for number in self.live.history.tolist()]
        heapq.heapify(newest_first)
        while True:
            newest = -heapq.heappop(newest_first)
            while newest_first and newest_first[0] == -newest:
                heapq.heappop(newest_first)
            if not newest_first:
                return newest
            # Its parent has a lower number, as every history has that another extends.
            heapq.heappush(newest_first, -self.path[newest][0])

    def arcs(self, history: int) -> Int[np.ndarray, "arcs"]:
        """The arcs that a history has taken, first to last."""
        found: list[int] = []
        while self.path[history][0] != _NOWHERE:
            history, arc = self.path[history]
            found.append(arc)
        return np.array(found[::-1], np.int64)


def _padded(rows: np.ndarray, count: int) -> np.ndarray:
    """Rows with zeros below them, so that the compiled function sees one size."""
    padded = np.zeros((count, *rows.shape[1:]), rows.dtype)
    padded[: len(rows)] = rows
    return padded


def _find(
    wanted: Int[np.ndarray, "wanted"], given: Int[np.ndarray, "given"]
) -> tuple[Int[np.ndarray, "found"], Int[np.ndarray, "found"]]:
    """Indices of the wanted numbers that are among the given ones, and their indices there."""
    order = np.argsort(given)
    place = np.searchsorted(given, wanted, sorter=order)
    where = order[np.minimum(place, len(given) - 1)]
    found = np.flatnonzero(given[where] == wanted)
    return found, where[found]


def _with_room(array: np.ndarray, entries: int, axis: int) -> np.ndarray:
    """The array if it has so many entries along an axis, else one twice as long as needed."""
    if array.shape[axis] >= entries:
        return array
    widths = [(0, 0)] * array.ndim
    widths[axis] = (0, 2 * entries - array.shape[axis])
    return np.pad(array, widths)
