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
network for all hypotheses at once. Frames may come in pieces: hypotheses then stay where they are
until the next frame is there, so that the steps are those of the whole trial.
"""

import copy
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from modessm_jax.decoding.transducer import Transducer
from modessm_jax.language.lexicon import NO_WORD, Lexicon, any_phonemes, grow
from modessm_jax.language.ngram import NGram, NGramStates
from modessm_jax.phonemes import SILENCE
from modessm_jax.search.options import Partial, SearchOptions, WordHypothesis, rank
from modessm_jax.search.transducer_beam import Beam, Ended


class TransducerWordSearch:
    """Finds the best sentences of a lexicon; one tree and program serve any number of trials.

    Of a `WordHypothesis`, `acoustic` is here the log-probability of the sentence's best label
    sequence, summed over the alignments that the beam kept. `times` are the frames that emit the
    first and the last phoneme of a word on the best of these alignments. A frame may emit several
    labels, so that neighbouring words may share one.
    """

    def __init__(
        self,
        transducer: Transducer,
        lexicon: Lexicon | None,
        lm: NGram | None,
        options: SearchOptions,
    ):
        """Builds the tree, which takes seconds for a large lexicon.

        Args:
            transducer: the predictor and joint network.
            lexicon: pronunciations without the silence at their ends; None lets any phoneme follow
                any other, and finds no words: see `TransducerWordStream.phonemes`.
            lm: the n-gram; None makes all sentences of the lexicon equally likely.
            options: the width of the search and its weights. The blank's probability is divided by
                its penalty and all are then normalised to sum to one, as in k2-fsa's icefall: every
                alignment takes one blank for each frame, so that division alone would change no
                ranking.
        """
        self.words = () if lexicon is None else tuple(lexicon.words)
        self.lm = lm
        alone = (lambda word: 0.0) if lm is None else lm.alone
        self.tree = any_phonemes() if lexicon is None else grow(lexicon, alone)
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
        stream = self.stream()
        stream.advance(frames)
        return stream.finish()

    def stream(self) -> "TransducerWordStream":
        """A search to be fed as frames arrive; streams do not affect each other."""
        return TransducerWordStream(self)


class Labels(NamedTuple):
    """The labels of a hypothesis, `[labels]` each; see `TransducerWordStream.phonemes`."""

    ids: Any  # of phonemes
    frames: Any  # which emit them
    scores: Any  # log-probabilities of emitting them there
    stable: int  # the first so many are those of every hypothesis: later frames cannot change them


class TransducerWordStream:
    """One trial whose frames arrive in pieces; the final result equals that of the whole trial."""

    def __init__(self, search: TransducerWordSearch):
        self._search, self._options, self._tree = search, search.options, search.tree
        ngram = NGramStates(search.lm, search.words)
        self._beam = Beam(search.transducer, search.tree, ngram, search.options)

    def advance(self, frames: Float[np.ndarray, "frames d"]) -> None:
        """Takes the next frames, and searches as far as they allow.

        Raises:
            ValueError: see `TransducerWordSearch`; or the stream has ended.
        """
        self._check_open()
        if not np.isfinite(frames).all():
            raise ValueError("the encoder's frames hold NaN or infinity; look for what diverged")
        self._beam.add(frames)

    def finish(self) -> list[WordHypothesis]:
        """The result of all the frames, as `TransducerWordSearch` gives it; the stream has ended.

        Raises:
            ValueError: no frames were given, or the stream has ended, or as `advance`.
        """
        self._check_open()
        if not self._beam.count:
            raise ValueError("the encoder gives no frames; give at least one")
        self._beam.finish()
        ends = ((each.total, self._hypothesis(each)) for each in self._beam.results())
        return rank(ends, self._options.nbest)

    def partial(self) -> Partial:
        """The words of what is now the best hypothesis."""
        words, times = self._read(*self._beam.leader(), NO_WORD)
        stable = self._tree.word[self._beam.arcs(self._beam.common())]
        return Partial(words, times, int((stable != NO_WORD).sum()))

    def phonemes(self) -> Labels:
        """The labels of what is now the best hypothesis; of the best of all once it has ended."""
        if self._beam.complete:
            best = self._beam.results()[0]
            history, emitted, stable = best.history, best.emitted, best.history
        else:
            (history, emitted), stable = self._beam.leader(), self._beam.common()
        ids = self._tree.label[self._beam.arcs(history)]
        frames, scores = emitted[: len(ids)].T
        return Labels(ids, frames.astype(np.int64), scores, len(self._beam.arcs(stable)))

    def _check_open(self) -> None:
        if self._beam.complete:
            raise ValueError("the stream has ended; begin another one for the next trial")

    def _hypothesis(self, ended: Ended) -> WordHypothesis:
        words, times = self._read(ended.history, ended.emitted, ended.word)
        scores = ended.acoustic, ended.lm, ended.total
        return WordHypothesis(words, *scores, times, complete=bool(self._beam.ended))

    def _read(
        self, history: int, emitted: Float[np.ndarray, "labels 2"], word: int
    ) -> tuple[tuple[str, ...], tuple[tuple[int, int], ...]]:
        """The words of a history, with one that ends after it, and the frames of each."""
        words, times, spoken = [], [], []
        arcs = self._beam.arcs(history)
        ends = zip(self._tree.label[arcs], self._tree.word[arcs], strict=True)
        for place, (label, ended) in enumerate([*ends, (SILENCE, word)]):
            if label != SILENCE:
                spoken.append(int(emitted[place, 0]))
            elif ended != NO_WORD:
                words.append(self._search.words[ended])
                times.append((spoken[0], spoken[-1] + 1))
                spoken = []
        return tuple(words), tuple(times)
