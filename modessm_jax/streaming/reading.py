"""Reading the frames of a sentence as they come: phonemes and words with their times.

A whole trial is read by the same code, all frames at once, so that both end with the same.
"""

from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float32

from modessm_jax.decoding.transducer import Emissions
from modessm_jax.evaluation.posteriors import best_path
from modessm_jax.phonemes import BLANK, CLASSES, SYMBOLS
from modessm_jax.search.options import Partial
from modessm_jax.streaming.decoded import Decoded, Phoneme, Word, seconds


class Frames(NamedTuple):
    """The next frames of a sentence, `[frames, ...]` each."""

    scores: Float32[np.ndarray, "frames classes"]  # log-probabilities of the CTC head
    encoder: Float32[np.ndarray, "frames d"] | None = None  # inputs of a joint network
    emitted: Emissions | None = None  # labels of the transducer's greedy search


def join(parts: list[Frames]) -> Frames:
    """Frames one after the other; none of no parts."""
    if not parts:
        return Frames(np.zeros((0, CLASSES), np.float32))
    return jax.tree.map(lambda *arrays: np.concatenate(arrays), *parts)


class Span(NamedTuple):
    """A phoneme's id, the first and one past the last of its frames, and its log-probability."""

    phoneme: int
    start: int
    end: int
    score: float


class BestPath:
    """The best class of every frame, repeats merged, blanks removed: see `best_path`.

    `feed` gives the phonemes that frames end, `finish` those of the whole sentence; so do the other
    two ways to find phonemes.
    """

    def __init__(self) -> None:
        self._found: list[Span] = []
        self._open = np.zeros((0, CLASSES), np.float32)  # frames of the class that may go on
        self._before = 0  # frames before these

    def feed(self, frames: Frames) -> list[Span]:
        self._open = np.concatenate([self._open, frames.scores])
        best = self._open.argmax(axis=1)
        if best[-1] == BLANK:
            return self._close(len(best) - 1)
        changes = np.flatnonzero(np.diff(best))
        return self._close(int(changes[-1]) + 1 if len(changes) else 0)

    def finish(self) -> list[Span]:
        self._close(len(self._open))
        return self._found

    def _close(self, count: int) -> list[Span]:
        """The phonemes of the first open frames, all of which have ended."""
        ended, self._open = self._open[:count], self._open[count:]
        phonemes, spans = best_path(ended)
        found = [
            Span(phoneme, self._before + start, self._before + end, float(score))
            for phoneme, (start, end) in zip(phonemes.tolist(), spans.tolist(), strict=True)
            for score in [ended[start:end, phoneme].mean()]
        ]
        self._before += count
        self._found += found
        return found


class GreedyLabels:
    """The labels of a transducer's greedy search."""

    def __init__(self) -> None:
        self._found: list[Span] = []
        self._before = 0  # frames

    def feed(self, frames: Frames) -> list[Span]:
        assert frames.emitted is not None
        ids, scores = frames.emitted
        places = np.argwhere(ids != BLANK)
        found = [
            Span(int(ids[at, k]), self._before + at, self._before + at + 1, float(scores[at, k]))
            for at, k in places.tolist()
        ]
        self._before += len(ids)
        self._found += found
        return found

    def finish(self) -> list[Span]:
        return self._found


class BeamLabels:
    """The labels of a transducer's beam search: a stream of `TransducerWordSearch`."""

    def __init__(self, stream: Any):
        self._stream, self._given, self._frames = stream, 0, 0

    def feed(self, frames: Frames) -> list[Span]:
        assert frames.encoder is not None
        self._stream.advance(frames.encoder)
        self._frames += len(frames.encoder)
        labels = self._stream.phonemes()
        spans = _spans(labels)[self._given : labels.stable]
        self._given = labels.stable
        return spans

    def finish(self) -> list[Span]:
        if not self._frames:
            return []
        self._stream.finish()
        return _spans(self._stream.phonemes())


def _spans(labels: Any) -> list[Span]:
    parts = zip(labels.ids.tolist(), labels.frames.tolist(), labels.scores.tolist(), strict=True)
    return [Span(phoneme, frame, frame + 1, score) for phoneme, frame, score in parts]


Phonemes = BestPath | GreedyLabels | BeamLabels


class Found(NamedTuple):
    """What frames brought: see `News`."""

    phonemes: tuple[Phoneme, ...] = ()
    words: tuple[Word, ...] = ()


class Reading:
    """One sentence as it is read.

    Attributes:
        tentative: see `News`.
    """

    def __init__(self, phonemes: Phonemes, words: Any, stride: int):
        """Begins a sentence.

        Args:
            phonemes: finds its phonemes.
            words: the stream of a word search, or None.
            stride: bins in a frame.
        """
        self._phonemes, self._words, self._stride = phonemes, words, stride
        self._frames = self._committed = 0
        self.tentative: tuple[str, ...] = ()

    def feed(self, frames: Frames, bins: int) -> Found:
        """What the next frames bring, of a sentence that has `bins` bins so far."""
        if not len(frames.scores):
            return Found()
        self._frames += len(frames.scores)
        spans = self._phonemes.feed(frames)
        times = seconds(((span.start, span.end) for span in spans), self._stride, bins)
        phonemes = tuple(
            Phoneme(SYMBOLS[span.phoneme], *edges, span.score)
            for span, edges in zip(spans, times, strict=True)
        )
        if self._words is None:
            return Found(phonemes)
        self._words.advance(frames.scores if frames.encoder is None else frames.encoder)
        found: Partial = self._words.partial()
        edges = seconds(found.times, self._stride, bins)
        words = tuple(Word(word, *of) for word, of in zip(found.words, edges, strict=True))
        new = words[self._committed : found.stable]
        self._committed = found.stable
        self.tentative = found.words[found.stable :]
        return Found(phonemes, new)

    def finish(self, bins: int) -> Decoded:
        """The sentence, of `bins` bins; there are no words where there are no frames."""
        spans = self._phonemes.finish()
        best = self._words.finish()[0] if self._words is not None and self._frames else None
        return Decoded(
            tuple(SYMBOLS[span.phoneme] for span in spans),
            seconds(((span.start, span.end) for span in spans), self._stride, bins),
            tuple(span.score for span in spans),
            () if best is None else best.words,
            () if best is None else seconds(best.times, self._stride, bins),
        )
