"""From phoneme probabilities to words: CTC beam search over a lexicon with an n-gram.

The engine is flashlight-text's lexicon decoder (J. Kahn et al., "Flashlight: Enabling innovation in
tools for machine learning", ICML 2022; R. Collobert et al., arXiv:1609.03193): hypotheses walk a
tree of pronunciations frame by frame, and the most likely ones are kept.

The labels of a sentence are: silence or none; then each word's phonemes, followed by at least one
silence, except that the last word may end with the last frame. A sentence is scored by its most
likely alignment and pronunciation (Viterbi), as in the benchmarks' official decoder. With a beam
wide enough for every hypothesis the search is exact.
"""

import copy
import math
from collections import defaultdict
from itertools import takewhile
from typing import Any

import numpy as np
from jaxtyping import Float32, Int

from modessm_jax.language.lexicon import Lexicon
from modessm_jax.language.ngram import NGram
from modessm_jax.phonemes import BLANK, CLASSES, SILENCE
from modessm_jax.search.options import LOG_ZERO, Partial, SearchOptions, WordHypothesis, rank

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
# Costs more than any sentence, so that an unfinished word wins only where nothing is finished.
_UNFINISHED = -1e6


class WordSearch:
    """Finds the best sentences of a lexicon; one tree serves any number of trials and streams."""

    def __init__(self, lexicon: Lexicon, lm: NGram | None, options: SearchOptions):
        """Builds the tree, which takes seconds for a large lexicon.

        Args:
            lexicon: pronunciations without the silence at their ends.
            lm: the n-gram; None makes all sentences of the lexicon equally likely.
            options: the width of the search and its weights.
        """
        self.lexicon, self.lm = lexicon, lm
        self.words = tuple(lexicon.words)
        self._model: Any = flashlight.ZeroLM()
        if lm is not None:
            dictionary = Dictionary()
            for word in self.words:
                dictionary.add_entry(lm.spelling(word))
            self._model = KenLM(str(lm.file), dictionary)
        self._tree, self._floors = self._grow(lexicon)
        self._set_options(options)

    def with_options(self, options: SearchOptions) -> "WordSearch":
        """The same search with other options; the tree is shared, so that this costs nothing."""
        search = copy.copy(self)
        search._set_options(options)
        return search

    def _set_options(self, options: SearchOptions) -> None:
        self.options = options
        # What is added to each column of the emissions; see `_grow`.
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
        """A search to be fed as frames arrive; streams do not affect each other."""
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
        scaled = np.maximum(np.asarray(log_probabilities, np.float32), LOG_ZERO)
        scaled[:, BLANK] -= math.log(self.options.blank_penalty)
        scaled *= self.options.acoustic_scale
        copies = scaled[:, SILENCE, None] + self.extra[CLASSES:]
        # The engine reads memory row by row, whatever the array's strides are.
        return np.ascontiguousarray(np.concatenate([scaled, copies], axis=1))

    def _unknown(self) -> tuple[set[int], float]:
        """The words the n-gram lacks, and by how many nats `NGram` scores them above the engine.

        Both use KenLM, but where a model has no unknown word `NGram` sets a floor.
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

        A node holds few words. Further homophones end in a copy of the silence, one column for
        every six words; words the n-gram lacks end in copies of their own.
        """
        homophones: defaultdict[tuple[int, ...], list[int]] = defaultdict(list)
        for index, pronunciations in enumerate(lexicon.words.values()):
            for pronunciation in dict.fromkeys(pronunciations):
                homophones[pronunciation].append(index)
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
    """One trial whose frames arrive in pieces; the final result equals that of the whole trial."""

    def __init__(self, search: WordSearch, decoder: Any):
        self._search = search
        self._decoder = decoder
        self._frames = self._stable = 0
        self._shown: tuple[str, ...] = ()
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

    def partial(self) -> Partial:
        """The words of what is now the best hypothesis, as `feed` gives them, and their frames."""
        if not self._frames:
            return Partial((), (), 0)
        best = self._decoder.get_best_hypothesis(0)
        # The engine's lists begin with the state before the first frame.
        words, times = self._read(best.words[1:], best.tokens[1:])
        # Comparing all hypotheses takes as long as searching the frame does.
        if words != self._shown and len(words) > self._stable:
            self._stable = self._shared([index for index in best.words if index >= 0])
        self._shown = words
        return Partial(words, times, self._stable)

    def _shared(self, said: list[int]) -> int:
        """How many words of the best hypothesis all others begin with."""
        count = len(said)
        for result in self._decoder.get_all_final_hypothesis():
            other = [index for index in result.words if index >= 0]
            pairs = zip(said[:count], other, strict=False)
            count = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
            if count == self._stable:  # those stay
                break
        return count

    def advance(self, log_probabilities: Float32[np.ndarray, "frames classes"]) -> None:
        """Takes the next frames without looking up the best hypothesis."""
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
        results = self._decoder.get_all_final_hypothesis()
        found = ((result.score, self._hypothesis(result)) for result in results)
        return rank(found, self._search.options.nbest)

    def _step(self, emissions: Float32[np.ndarray, "frames columns"]) -> None:
        if self._ended:
            raise ValueError("the stream has ended; begin another one for the next trial")
        self._decoder.decode_step(emissions.ctypes.data, *emissions.shape)
        self._frames += len(emissions)

    def _hypothesis(self, result: Any) -> WordHypothesis:
        options, lm = self._search.options, self._search.lm
        # The engine's lists begin with the state before the first frame and end with one after.
        tokens = np.array(result.tokens[1:-1])
        words, times = self._read(result.words[1:-1], tokens)
        complete = bool(tokens[-1] != BLANK)
        acoustic = result.emittingModelScore - float(self._search.extra[tokens].sum())
        acoustic = (acoustic - (0 if complete else _UNFINISHED)) / options.acoustic_scale
        prior = 0.0 if lm is None else lm.score(words)
        total = options.total(acoustic, prior, len(words))
        return WordHypothesis(words, acoustic, prior, total, times, complete)

    def _read(self, labels: Any, tokens: Any) -> tuple[tuple[str, ...], Any]:
        """The words of a path, and the frames of each."""
        labels, tokens = np.array(labels), np.array(tokens)
        ends = np.flatnonzero(labels >= 0)
        words = tuple(self._search.words[index] for index in labels[ends])
        return words, _spans(np.flatnonzero((tokens > BLANK) & (tokens < SILENCE)), ends)


def _spans(
    spoken: Int[np.ndarray, "spoken"], ends: Int[np.ndarray, "words"]
) -> tuple[tuple[int, int], ...]:
    """For each word the first and one past the last of the phoneme frames before its end."""
    after = np.searchsorted(spoken, ends)
    before = np.concatenate([[0], after])[:-1].astype(int)
    spans = zip(spoken[before], spoken[after - 1] + 1, strict=True)
    return tuple((int(first), int(last)) for first, last in spans)
