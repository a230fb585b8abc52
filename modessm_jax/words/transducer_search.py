"""From a transducer to words: its beam search, restricted to a lexicon and weighted by an n-gram.

Only label sequences that spell a sentence of the lexicon (see `PronunciationTree`) are searched, as
in `decoding.transducer_beam`: in step with the alignments' length (Saon, Tüske and Audhkhasi 2020),
where hypotheses with the same labels and words become one by adding their probabilities. The n-gram
scores a word as soon as it ends (shallow fusion; Gulcehre et al., arXiv:1503.03535). Until then the
beam compares hypotheses by the most likely word that may still follow; no other score uses that
look-ahead. Sentences of more labels than frames are not considered; CTC cannot emit them either.
With a beam wide enough for every hypothesis the search is exact.

Leaving labels out costs a transducer little, however long the trial: where the n-gram makes words
expensive, raise `word_score` or the blank's penalty, or words are left out.

The search runs on the host. One compiled function advances the predictor and evaluates the joint
network for all hypotheses at once.
"""

import copy
import math
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from modessm_jax.decoding.transducer import Transducer, select
from modessm_jax.language.lexicon import BETWEEN, NO_WORD, START, Lexicon, grow
from modessm_jax.language.ngram import NGram
from modessm_jax.phonemes import BLANK, SILENCE
from modessm_jax.words.search import LOG_ZERO, SearchOptions, WordHypothesis, rank

_NOWHERE = -1


class TransducerWordSearch:
    """Finds the best sentences of a lexicon; one tree and program serve any number of trials.

    Of a `WordHypothesis`, `acoustic` is here the log-probability of the sentence's best label
    sequence, summed over the alignments that the beam kept. `times` are the frames that emit the
    first and the last phoneme of a word on the best of these alignments. A frame may emit several
    labels, so that neighbouring words may share one.
    """

    def __init__(
        self, transducer: Transducer, lexicon: Lexicon, lm: NGram | None, options: SearchOptions
    ):
        """Builds the tree, which takes seconds for a large lexicon.

        Args:
            transducer: the predictor and joint network.
            lexicon: pronunciations without the silence at their ends.
            lm: the n-gram; None makes all sentences of the lexicon equally likely.
            options: the width of the search and its weights. The blank's probability is divided by
                its penalty and all are then normalised to sum to one, as in k2-fsa's icefall: every
                alignment takes one blank for each frame, so that division alone would change no
                ranking.
        """
        self.words = tuple(lexicon.words)
        self.lm = lm
        self.tree = grow(lexicon, (lambda word: 0.0) if lm is None else lm.alone)
        self.options = options
        self.transducer = transducer

    def with_options(self, options: SearchOptions) -> "TransducerWordSearch":
        """The same search with other options; a new beam needs a new compilation."""
        search = copy.copy(self)
        search.options = options
        return search

    def __call__(self, frames: Float[np.ndarray, "frames d"]) -> list[WordHypothesis]:
        """The best sentences of a trial, best first, no two with the same words, at least one.

        Args:
            frames: of the encoder, projected to the joint network's width.

        Raises:
            ValueError: there are no frames, the frames are not finite, or the joint network gives
                NaN.
        """
        if not len(frames):
            raise ValueError("the encoder gives no frames; give at least one")
        if not np.isfinite(frames).all():
            raise ValueError("the encoder's frames hold NaN or infinity; look for what diverged")
        trial = _Trial(self, frames)
        while len(trial.live.score):
            trial.step()
        return trial.results()


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


class _Live(NamedTuple):
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
    when: Any  # [hypotheses, most labels], the frame of each label on that alignment

    def at(self, chosen: Any) -> "_Live":
        return _Live(*(field[chosen] for field in self))


class _Ended(NamedTuple):
    """A hypothesis that has left the last frame, and the word that ends there."""

    total: float
    acoustic: float
    lm: float
    history: int
    word: int
    when: Any


class _Trial:
    """The search of one trial."""

    def __init__(self, search: TransducerWordSearch, frames: Float[np.ndarray, "frames d"]):
        self.search, self.frames, self.taken = search, frames, 0
        self.options, self.tree = search.options, search.tree
        self.ngram = _NGramStates(search.lm, search.words)
        self.numbers: dict[tuple[int, int], int] = {}
        self.path = [(_NOWHERE, _NOWHERE)]
        self.ended: list[_Ended] = []
        self.unfinished: list[_Ended] = []
        self.reached = -math.inf  # by the best that has ended
        self.live = _Live(
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
            when=np.zeros((1, len(frames)), np.int32),
        )
        self.memory = _begin(search.transducer, self.options.beam)
        # The row each hypothesis extends, and its last label (blank: none), for the predictor.
        self.before = np.zeros(1, np.int32), np.full(1, BLANK, np.int32)

    def step(self) -> None:
        """One more arc for every hypothesis."""
        frame = self.taken - self.live.labels
        self.taken += 1
        scores = self.scores(frame)
        leaves = frame == len(self.frames) - 1
        by_blank = self.live.score + scores[:, BLANK], self.live.best + scores[:, BLANK]
        for row in np.flatnonzero(leaves):
            self.end(int(row), float(by_blank[0][row]))
        self.advance(frame, leaves, scores, *by_blank)

    def scores(self, frame: Int[np.ndarray, "live"]) -> Float[np.ndarray, "live classes"]:
        """Log-probabilities of what follows each hypothesis."""
        parent, label, frames = (
            _padded(each, self.options.beam) for each in (*self.before, self.frames[frame])
        )
        penalty = np.asarray(self.options.blank_penalty, frames.dtype)
        given = self.memory, parent, label, frames, penalty
        self.memory, scores = _scores(self.search.transducer, *given)
        scores = np.asarray(scores)[: len(frame)].astype(np.float64)
        if np.isnan(scores).any():
            raise ValueError("the joint network gives NaN; look for what diverged in training")
        return scores

    def end(self, row: int, score: float) -> None:
        """Ends a hypothesis at the last frame, as each sentence that its labels may spell."""
        node, state = int(self.live.node[row]), int(self.live.state[row])
        words, prior = int(self.live.words[row]), float(self.live.prior[row])

        def ended(word: int) -> _Ended:
            after, lm = (state, 0.0) if word == NO_WORD else self.ngram.extend(state, word)
            lm = prior + lm + self.ngram.end(after)
            total = self.options.total(score, lm, words + (word != NO_WORD))
            when = self.live.when[row].copy()
            return _Ended(total, score, lm, int(self.live.history[row]), word, when)

        last = [NO_WORD] if node in (START, BETWEEN) else self.tree.words(node)
        if not last:
            self.unfinished.append(ended(NO_WORD))
        for word in last:
            self.ended.append(ended(word))
            self.reached = max(self.reached, self.ended[-1].total)

    def advance(
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
        size = np.where(live.labels < len(self.frames), tree.first[live.node + 1] - first, 0)
        source = np.repeat(np.arange(len(size)), size)
        start = np.cumsum(size) - size
        arc = np.arange(len(source)) + np.repeat(first - start, size)
        of_label = scores[source, tree.label[arc]]
        by_label, best_by_label = live.score[source] + of_label, live.best[source] + of_label

        # A label may lead to the labels that another hypothesis already has and takes a blank with.
        rows, parents = _find(live.parent, live.history)
        same = start[parents] + live.arc[rows] - first[parents]
        better = best_by_label[same] > best[rows]
        when = live.when.copy()
        when[rows[better]] = live.when[parents[better]]
        when[rows[better], live.labels[parents[better]]] = frame[parents[better]]
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
        same_labels = live._replace(score=score, best=best, when=when).at(stays)
        parent, arc = source[goes], arc[goes]
        when = live.when[parent]
        when[np.arange(len(goes)), live.labels[parent]] = frame[parent]
        one_label_more = _Live(
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
            when=when,
        )
        self.live = _Live(*map(np.concatenate, zip(same_labels, one_label_more, strict=True)))
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

    def results(self) -> list[WordHypothesis]:
        """The best sentences; those that end inside a word only where no other was found."""
        ends = sorted(self.ended or self.unfinished, key=lambda each: -each.total)
        found = ((each.total, self.hypothesis(each)) for each in ends)
        return rank(found, self.options.nbest)

    def hypothesis(self, ended: _Ended) -> WordHypothesis:
        """The words of a hypothesis, and the frames of each."""
        arcs: list[int] = []
        number = ended.history
        while self.path[number][0] != _NOWHERE:
            number, arc = self.path[number]
            arcs.append(arc)
        words, times, spoken = [], [], []
        ends = [(self.tree.label[arc], self.tree.word[arc]) for arc in reversed(arcs)]
        for place, (label, word) in enumerate([*ends, (SILENCE, ended.word)]):
            if label != SILENCE:
                spoken.append(int(ended.when[place]))
            elif word != NO_WORD:
                words.append(self.search.words[word])
                times.append((spoken[0], spoken[-1] + 1))
                spoken = []
        scores = ended.acoustic, ended.lm, ended.total
        return WordHypothesis(tuple(words), *scores, tuple(times), complete=bool(self.ended))


class _NGramStates:
    """The n-gram's states as numbers, its scores cached; without an n-gram they are all 0."""

    def __init__(self, lm: NGram | None, words: Sequence[str]):
        self._lm, self._words = lm, words
        self._states = [None if lm is None else lm.start()]
        self._numbers = {self._states[0]: 0}
        self._extended: dict[tuple[int, int], tuple[int, float]] = {}
        self._ends: dict[int, float] = {}

    def extend(self, state: int, word: int) -> tuple[int, float]:
        """See `NGram`."""
        if self._lm is None:
            return state, 0.0
        key = state, word
        if key not in self._extended:
            after, score = self._lm.extend(self._states[state], self._words[word])
            number = self._numbers.setdefault(after, len(self._states))
            if number == len(self._states):
                self._states.append(after)
            self._extended[key] = number, score
        return self._extended[key]

    def end(self, state: int) -> float:
        """See `NGram`."""
        if self._lm is None:
            return 0.0
        if state not in self._ends:
            self._ends[state] = self._lm.end(self._states[state])
        return self._ends[state]


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
