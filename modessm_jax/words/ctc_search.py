"""From phoneme probabilities to words: CTC beam search over a lexicon with an n-gram.

The engine is flashlight-text's lexicon decoder (J. Kahn et al., "Flashlight: Enabling innovation in
tools for machine learning", ICML 2022; R. Collobert et al., arXiv:1609.03193): hypotheses walk a
tree of pronunciations frame by frame, and the likeliest ones go on.

A sentence is said as: silence or none; then each word's phonemes, followed by at least one silence,
except that the last word may end with the last frame. The likeliest alignment and pronunciation
stand for all (Viterbi), as in the benchmarks' official decoder. With a beam wide enough for every
hypothesis the search is exact.
"""

import copy
import math
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float32, Int

from modessm_jax.language.lexicon import Lexicon
from modessm_jax.language.ngram import NGram
from modessm_jax.phonemes import BLANK, CLASSES, SILENCE

try:
    from flashlight.lib.text import decoder as flashlight
    from flashlight.lib.text.decoder.kenlm import KenLM
    from flashlight.lib.text.dictionary import Dictionary
except ImportError as error:
    remedy = "the word search needs flashlight-text: pip install 'modessm_jax[words]'"
    raise ImportError(remedy) from error

# A node of the engine's tree holds this many words, and drops further ones without an error.
_WORDS_AT_NODE = 6
# The engine's n-gram scores are decimal logarithms.
_LOG10 = math.log(10)
# In place of -inf, whose differences are not numbers.
UNLIKELIEST = -1e4
# Costs more than any sentence, so that an unfinished word wins only where nothing is finished.
_UNFINISHED = -1e6


@dataclass(frozen=True)
class SearchOptions:
    """What is kept in the search, and how its scores are weighed; all in natural logarithms.

    Attributes:
        beam: hypotheses kept after each frame.
        beam_threshold: nats behind the best, in `total`, after which a hypothesis is dropped.
            15 has the word error rate of 50 in less than half the time, 12 a higher one
            (benchmarks/results/word_search.md).
        lm_weight: factor of the n-gram's log-probability.
        word_score: nats added for each word.
        acoustic_scale: factor of the log-probabilities of the frames.
        blank_penalty: divides the blank's probability, before scaling.
        nbest: at most so many hypotheses are returned.

    Raises:
        ValueError: a value is out of range.
    """

    beam: int = 500
    beam_threshold: float = 15.0
    lm_weight: float = 0.8
    word_score: float = 0.0
    acoustic_scale: float = 1.0
    blank_penalty: float = 1.0
    nbest: int = 100

    def __post_init__(self) -> None:
        for name in ("beam", "nbest"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} = {getattr(self, name)}: keep at least 1 hypothesis")
        for name in ("beam_threshold", "acoustic_scale", "blank_penalty"):
            value = getattr(self, name)
            if not 0 < value < math.inf:
                raise ValueError(f"{name} = {value}: give a finite number above 0")
        for name in ("lm_weight", "word_score"):
            if not math.isfinite(getattr(self, name)):
                raise ValueError(f"{name} = {getattr(self, name)}: give a finite number")


@dataclass(frozen=True)
class WordHypothesis:
    """A sentence and its scores in nats.

    Attributes:
        words: of the sentence.
        acoustic: log-probability of the likeliest path that says the words, with the blank's
            penalty and without `acoustic_scale`.
        lm: of the words and the sentence's end; 0 without an n-gram.
        total: acoustic_scale * acoustic + lm_weight * lm + word_score * len(words).
        times: of each word the first and one past the last frame of its phonemes on that path,
            silence left out. Where paths are exactly as likely, it is left open which one this is.
        complete: False where the frames end inside a word that no hypothesis finishes; `words` are
            those before it, and `acoustic` includes its beginning.
    """

    words: tuple[str, ...]
    acoustic: float
    lm: float
    total: float
    times: tuple[tuple[int, int], ...]
    complete: bool = True


class WordSearch:
    """Finds the best sentences of a lexicon; one tree serves any number of trials and streams."""

    def __init__(self, lexicon: Lexicon, lm: NGram | None, options: SearchOptions):
        """Builds the tree, which takes seconds for a large lexicon.

        Args:
            lexicon: pronunciations without the silence at their ends.
            lm: the n-gram; None leaves every sentence of the lexicon as likely as any other.
            options: the width of the search and its weights.

        Raises:
            ValueError: the lexicon has no words.
        """
        self.lm = lm
        self.words = tuple(lexicon.words)
        self._model: Any = flashlight.ZeroLM()
        if lm is not None:
            self._model = KenLM(str(lm.path), self._dictionary())
        self._tree, self._floors = self._grow(lexicon)
        self._weigh(options)

    def with_options(self, options: SearchOptions) -> "WordSearch":
        """The same search with other options; the tree is shared, so that this costs nothing."""
        search = copy.copy(self)
        search._weigh(options)
        return search

    def _weigh(self, options: SearchOptions) -> None:
        self.options = options
        # What each column has above the frames' own; see `_grow`.
        self.extra = np.float32(options.lm_weight) * self._floors
        self._settings = flashlight.LexiconDecoderOptions(
            beam_size=options.beam,
            beam_size_token=len(self.extra),
            beam_threshold=options.beam_threshold,
            lm_weight=options.lm_weight * _LOG10,
            word_score=options.word_score,
            unk_score=-math.inf,
            sil_score=0.0,
            log_add=False,
            criterion_type=flashlight.CriterionType.CTC,
        )

    def __call__(
        self, log_probabilities: Float32[np.ndarray, "frames classes"]
    ) -> list[WordHypothesis]:
        """The best sentences of a trial, best first, no two with the same words, at least one.

        Args:
            log_probabilities: natural logarithms of the classes' probabilities, blank first;
                -inf counts as -10,000.

        Raises:
            ValueError: there are no frames, not 41 classes, or values that are NaN or +inf.
        """
        stream = self.stream()
        stream.advance(log_probabilities)
        return stream.finish()

    def stream(self) -> "WordStream":
        """A search to be fed as frames arrive; streams do not disturb each other."""
        decoder = flashlight.LexiconDecoder(
            self._settings, self._tree, self._model, SILENCE, BLANK, -1, [], False
        )
        return WordStream(self, decoder)

    def emissions(
        self, log_probabilities: Float32[np.ndarray, "frames classes"]
    ) -> Float32[np.ndarray, "frames columns"]:
        """Frames as the engine takes them: penalised, scaled, one column for each silence.

        Raises:
            ValueError: see `__call__`.
        """
        frames, classes = log_probabilities.shape
        if classes != CLASSES:
            raise ValueError(f"log_probabilities have {classes} classes, not {CLASSES}")
        if not frames:
            raise ValueError("log_probabilities have no frames; give at least one")
        if not (log_probabilities < math.inf).all():
            raise ValueError("log_probabilities hold NaN or +inf; look for what diverged before")
        scaled = np.maximum(np.asarray(log_probabilities, np.float32), UNLIKELIEST)
        scaled[:, BLANK] -= math.log(self.options.blank_penalty)
        scaled *= self.options.acoustic_scale
        copies = scaled[:, SILENCE, None] + self.extra[CLASSES:]
        # The engine reads memory row by row, whatever the array's strides say.
        return np.ascontiguousarray(np.concatenate([scaled, copies], axis=1))

    def _dictionary(self) -> Any:
        dictionary = Dictionary()
        for word in self.words:
            dictionary.add_entry(word)
        return dictionary

    def _unknown(self) -> tuple[set[int], float]:
        """The words the n-gram does not know, and the nats it gives them above the engine.

        Both ask KenLM, but where a model has no unknown word `NGram` sets a floor.
        """
        if self.lm is None:
            return set(), 0.0
        unknown = {index for index, word in enumerate(self.words) if word not in self.lm}
        for index in unknown:
            _, ours = self.lm.extend(self.lm.start(), self.words[index])
            _, engines = self._model.score(self._model.start(False), index)
            return unknown, ours - _LOG10 * engines
        return unknown, 0.0

    def _grow(self, lexicon: Lexicon) -> tuple[Any, Float32[np.ndarray, "columns"]]:
        """The tree of pronunciations, and the floor in nats of each of its columns.

        A node holds few words. Further homophones end in a copy of the silence, a column for every
        six; words the n-gram does not know, in copies of their own.
        """
        homophones: defaultdict[tuple[int, ...], list[int]] = defaultdict(list)
        for index, pronunciations in enumerate(lexicon.words.values()):
            for pronunciation in dict.fromkeys(pronunciations):
                homophones[pronunciation].append(index)
        if not homophones:
            raise ValueError("the lexicon has no words; give it at least one")
        unknown, floor = self._unknown()
        nowhere = self._model.start(True)
        tree = flashlight.Trie(CLASSES + len(self.words), SILENCE)
        columns = {(False, 0): SILENCE}
        for pronunciation, words in homophones.items():
            for missing in (False, True):
                group = [index for index in words if (index in unknown) == missing]
                for place, index in enumerate(group):
                    kind = (missing, place // _WORDS_AT_NODE)
                    end = columns.setdefault(kind, SILENCE + len(columns))
                    _, ahead = self._model.score(nowhere, index)
                    tree.insert([*pronunciation, end], index, ahead + missing * floor / _LOG10)
        tree.smear(flashlight.SmearingMode.MAX)
        floors = np.zeros(SILENCE + len(columns), np.float32)
        for (missing, _), column in columns.items():
            floors[column] = missing * floor
        return tree, floors


class WordStream:
    """One trial whose frames arrive bit by bit; the end result is that of the whole."""

    def __init__(self, search: WordSearch, decoder: Any):
        self._search = search
        self._decoder = decoder
        self._frames = 0
        self._ended = False
        decoder.decode_begin()

    def feed(self, log_probabilities: Float32[np.ndarray, "frames classes"]) -> tuple[str, ...]:
        """Takes the next frames, and returns the words of what is now the best hypothesis.

        They are the words it had finished one frame before the last; a later frame may change them.

        Raises:
            ValueError: see `WordSearch`; or the stream has ended.
        """
        self.advance(log_probabilities)
        found = self._decoder.get_best_hypothesis(0).words
        return tuple(self._search.words[index] for index in found if index >= 0)

    def advance(self, log_probabilities: Float32[np.ndarray, "frames classes"]) -> None:
        """Takes the next frames, and does not look for the best hypothesis."""
        self._step(self._search.emissions(log_probabilities))

    def finish(self) -> list[WordHypothesis]:
        """The result of all the frames, as `WordSearch` gives it; the stream has then ended.

        Raises:
            ValueError: no frames were given, or the stream has ended.
        """
        if not self._frames:
            raise ValueError("the stream was given no frames; give at least one")
        # One more frame is silence for certain, so that a last word may end without one.
        last = np.full((1, len(self._search.extra)), 2 * _UNFINISHED, np.float32)
        last[:, BLANK] = _UNFINISHED
        last[:, SILENCE:] = self._search.extra[SILENCE:]
        self._step(last)
        self._ended = True
        self._decoder.decode_end()
        found: dict[tuple[str, ...], WordHypothesis] = {}
        least, nbest = -math.inf, self._search.options.nbest
        for result in self._decoder.get_all_final_hypothesis():
            if len(found) >= nbest and result.score < least:
                break
            least = result.score
            hypothesis = self._hypothesis(result)
            found.setdefault(hypothesis.words, hypothesis)
        # The engine orders equals, such as homophones without an n-gram, by chance.
        return sorted(found.values(), key=lambda each: (-each.total, each.words))[:nbest]

    def _step(self, emissions: Float32[np.ndarray, "frames columns"]) -> None:
        if self._ended:
            raise ValueError("the stream has ended; begin another one for the next trial")
        self._decoder.decode_step(emissions.ctypes.data, *emissions.shape)
        self._frames += len(emissions)

    def _hypothesis(self, result: Any) -> WordHypothesis:
        options, lm = self._search.options, self._search.lm
        # The engine's lists begin with the state before the first frame and end with one after.
        labels, tokens = np.array(result.words[1:-1]), np.array(result.tokens[1:-1])
        ends = np.flatnonzero(labels >= 0)
        words = tuple(self._search.words[index] for index in labels[ends])
        complete = bool(tokens[-1] != BLANK)
        acoustic = result.emittingModelScore - float(self._search.extra[tokens].sum())
        acoustic = (acoustic - (0 if complete else _UNFINISHED)) / options.acoustic_scale
        prior = 0.0 if lm is None else lm.score(words)
        total = options.acoustic_scale * acoustic + options.lm_weight * prior
        total += options.word_score * len(words)
        spoken = np.flatnonzero((tokens > BLANK) & (tokens < SILENCE))
        times = _spans(spoken, ends)
        return WordHypothesis(words, acoustic, prior, total, times, complete)


def _spans(
    spoken: Int[np.ndarray, "spoken"], ends: Int[np.ndarray, "words"]
) -> tuple[tuple[int, int], ...]:
    """Of each word the first and one past the last of the spoken frames before its end."""
    after = np.searchsorted(spoken, ends)
    before = np.concatenate([[0], after])[:-1].astype(int)
    spans = zip(spoken[before], spoken[after - 1] + 1, strict=True)
    return tuple((int(first), int(last)) for first, last in spans)
