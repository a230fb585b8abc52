"""A trained decoder fed with bins as they are recorded: one stream, or several in one batch."""

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32

from modessm_jax.data.validation import BIN_SECONDS
from modessm_jax.phonemes import BLANK, SILENCE
from modessm_jax.recalibration.adapter import Adapter, with_entry
from modessm_jax.streaming.decoded import Decoded, News
from modessm_jax.streaming.features import Features
from modessm_jax.streaming.head import Head
from modessm_jax.streaming.reading import Frames, Reading, join
from modessm_jax.streaming.recalibration import Learned, Recalibration
from modessm_jax.streaming.step import BatchStep

PAUSE = 1.0


class Seconds(NamedTuple):
    """Seconds spent since the streams were made, all of them together."""

    model: float  # in the model's steps
    search: float  # in reading their frames: phonemes, and the search for words


class _Sentence:
    """What one stream has of its sentence so far."""

    def __init__(self, reading: Reading, channels: int):
        self.reading = reading
        self.waiting = np.zeros((0, channels), np.float32)  # features that no step has taken
        self.kept: list[np.ndarray] = []  # all features, where they are kept
        self.bins = self.frames = 0
        self.spoken = 0  # one past the last frame in which something was said
        self.flushed = self.finished = False


class Streams:
    """Several streams, each of one sentence after the other, stepped as one batch.

    A stream may be given bins while others wait: it is stepped when it has enough of them, and what
    it gives does not depend on the others. Not for several threads.

    Attributes:
        seconds: see `Seconds`.
        steps: that the model made.
        repaired: values that were not finite, and became 0, the mean.
        sessions: of the streams.
        keeps: bins of a sentence, at most, whose features are kept for `features`.
    """

    def __init__(
        self,
        step: BatchStep,
        head: Head,
        features: Features,
        entry: Callable[[str, Any], int],
        sessions: Sequence[str],
        before: Sequence[Any] | None,
        pause: float,
    ):
        """Begins a sentence in each stream; see `modessm_jax.decoder.Decoder.streams`.

        Args:
            step: of as many streams as there are sessions.
            head: that the step scores.
            features: of the run.
            entry: from a name for messages and a session to its entry in the session layers.
            sessions: of the streams.
            before: bins that were recorded before, for the normalisation, of each stream or None.
            pause: seconds of blank or silence that end a sentence.
        """
        if not 0 < pause < np.inf:
            raise ValueError(f"pause = {pause}: give seconds, more than 0")
        before = [None] * len(sessions) if before is None else before
        if len(before) != len(sessions):
            raise ValueError(f"before has {len(before)} entries for {len(sessions)} sessions")
        self._step, self._head, self._features = step, head, features
        self.stride, self.keeps = step.stride, 0
        self._entry, self._pause = entry, pause
        self.seconds, self.steps, self.repaired = Seconds(0.0, 0.0), 0, 0
        self.sessions = list(sessions)
        self._entries = np.array([entry("session", name) for name in sessions], np.int32)
        self._past = [features.start() for _ in sessions]  # states of the normalisation
        self._sentences = [self._new() for _ in sessions]
        for row, bins in enumerate(before):
            if bins is not None:
                self._normalized(row, features.take(bins, "before"))
        self._params, self._state = step.params, step.start()

    def push(self, bins: Sequence[Any]) -> list[News]:
        """Takes the next bins of every stream, and gives what is new.

        Args:
            bins: of each stream floats [bins, channels], of all channels that are recorded, any
                number of bins; or None for no bins. NaN and infinity become 0, the mean.

        Raises:
            ValueError: there is not one entry for each stream, bins have another rank, type or
                channel count, or a sentence has ended.
        """
        if len(bins) != len(self._sentences):
            raise ValueError(
                f"{len(bins)} entries for {len(self._sentences)} streams; give each one"
            )
        given = [None if each is None else self._features.take(each, "bins") for each in bins]
        _check(all(values is None or not each.flushed for values, each in self._with(given)))
        for row, (values, sentence) in enumerate(self._with(given)):
            if values is not None:
                features = self._normalized(row, values)
                sentence.waiting = np.concatenate([sentence.waiting, features])
                sentence.bins += len(features)
                if sentence.bins <= self.keeps:
                    sentence.kept.append(features)
                else:
                    sentence.kept.clear()
        found: list[list[Frames]] = [[] for _ in bins]
        while any(full := [len(each.waiting) >= self._step.bins for each in self._sentences]):
            self._advance(np.array(full), found)
        return [self._read(sentence, frames) for frames, sentence in self._with(found)]

    def flush(self, row: int) -> News:
        """Brings out the frames that lag: the sentence of a stream has no more bins.

        Raises:
            ValueError: the sentence has ended.
        """
        sentence = self._sentences[row]
        _check(not sentence.flushed)
        sentence.flushed = True
        found: list[list[Frames]] = [[] for _ in self._sentences]
        left = len(sentence.waiting) + self._step.late if sentence.bins else 0
        for _ in range(-(-left // self._step.bins)):
            self._advance(self._only(row), found)
        return self._read(sentence, found[row])

    def finish(self, row: int) -> Decoded:
        """Ends the sentence of a stream: what decoding all of its bins at once gives.

        Raises:
            ValueError: the sentence has ended.
        """
        sentence = self._sentences[row]
        _check(not sentence.finished)
        if not sentence.flushed:
            self.flush(row)
        sentence.finished = True
        start = time.perf_counter()
        decoded = sentence.reading.finish(sentence.bins)
        self._spend(search=time.perf_counter() - start)
        return decoded

    def reset(self, row: int, session: str | None = None) -> None:
        """Begins the next sentence of a stream; what is left of the one before is dropped.

        The normalisation goes on, or begins anew in another session.

        Args:
            row: the stream.
            session: of the sentence; None for that of the one before.

        Raises:
            ValueError: the session is unknown.
        """
        if session not in (None, self.sessions[row]):
            self._entries[row] = self._entry("session", session)
            self.sessions[row], self._past[row] = session, self._features.start()
        self._sentences[row] = self._new()
        self._state = self._step.restart(self._state, self._only(row))

    def features(self, row: int) -> Float32[np.ndarray, "bins channels"] | None:
        """The features that the model was given in a sentence, if they were kept.

        Raises:
            ValueError: the sentence has not ended.
        """
        sentence = self._sentences[row]
        if not sentence.finished:
            raise ValueError("the sentence has not ended: call finish() first")
        if sentence.bins > self.keeps:
            return None
        return np.concatenate([np.zeros((0, self._features.channels), np.float32), *sentence.kept])

    def adapt(self, row: int, adapter: Adapter) -> None:
        """Gives the session of a stream another adapter, in all of these streams.

        Args:
            row: the stream.
            adapter: see `recalibration.adapter`.
        """
        self._params = with_entry(self._params, int(self._entries[row]), adapter)

    def _new(self) -> _Sentence:
        return _Sentence(self._head.reading(self._step.stride), self._features.channels)

    def _with(self, given: list[Any]) -> list[tuple[Any, _Sentence]]:
        return [*zip(given, self._sentences, strict=True)]

    def _only(self, row: int) -> np.ndarray:
        return np.arange(len(self._sentences)) == row

    def _normalized(self, row: int, values: np.ndarray) -> np.ndarray:
        self.repaired += int((~np.isfinite(values)).sum())
        self._past[row], features = self._features.normalize(self._past[row], values, "bins")
        return features

    def _advance(self, active: np.ndarray, found: list[list[Frames]]) -> None:
        """One step of the active streams; adds the frames that it gives to those found."""
        size = self._step.bins
        bins = np.zeros((len(active), size, self._features.channels), np.float32)
        real = np.zeros(len(active), np.int32)
        for row in np.flatnonzero(active).tolist():
            sentence = self._sentences[row]
            taken, sentence.waiting = sentence.waiting[:size], sentence.waiting[size:]
            bins[row, : len(taken)], real[row] = taken, len(taken)
        start = time.perf_counter()
        given = self._params, self._state, bins, real, active, self._entries
        self._state, scored = self._step(*given)
        self._spend(model=time.perf_counter() - start)
        self.steps += 1
        for row in np.flatnonzero(active).tolist():
            found[row].append(scored.of(row))

    def _read(self, sentence: _Sentence, found: list[Frames]) -> News:
        """What new frames of a sentence bring."""
        start = time.perf_counter()
        frames = join(found)
        news = sentence.reading.feed(frames, sentence.bins)
        self._spend(search=time.perf_counter() - start)
        best = frames.scores.argmax(axis=1)
        said = np.flatnonzero((best != BLANK) & (best != SILENCE))
        if len(said):
            sentence.spoken = sentence.frames + int(said[-1]) + 1
        sentence.frames += len(best)
        quiet = (sentence.frames - sentence.spoken) * self._step.stride * BIN_SECONDS
        return News(
            phonemes=news.phonemes,
            frames=frames.scores,
            words=news.words,
            tentative=sentence.reading.tentative,
            endpoint=sentence.spoken > 0 and quiet >= self._pause,
        )

    def _spend(self, model: float = 0.0, search: float = 0.0) -> None:
        self.seconds = Seconds(self.seconds.model + model, self.seconds.search + search)


def _check(going_on: bool) -> None:
    if not going_on:
        raise ValueError("the sentence has ended: begin the next one with reset()")


class Stream:
    """One stream: the methods and attributes of `Streams`, without the places in a batch.

    Attributes:
        recalibration: how it learns from its sentences, see `recalibrate`; None where it does not.
    """

    def __init__(self, streams: Streams, recalibration: Recalibration | None = None):
        self._streams, self.recalibration = streams, recalibration
        self._repaired = streams.repaired  # before this sentence
        if recalibration is not None:
            streams.keeps = recalibration.bins
            streams.adapt(0, recalibration.adapter)  # changes nothing, but compiles

    def push(self, bins: Any) -> News:
        """Takes the next bins, floats [bins, channels]; see `Streams.push`."""
        return self._streams.push([bins])[0]

    @property
    def stride(self) -> int:
        """Bins in a frame."""
        return self._streams.stride

    def flush(self) -> News:
        """Brings out the frames that lag, before `finish`; see `Streams.flush`."""
        return self._streams.flush(0)

    def finish(self) -> Decoded:
        """Ends the sentence; see `Streams.finish`."""
        return self._streams.finish(0)

    def reset(self, session: str | None = None) -> None:
        """Begins the next sentence; see `Streams.reset`.

        Raises:
            ValueError: also where the stream is recalibrated, and the session is another one.
        """
        if self.recalibration is not None and session not in (None, self._streams.sessions[0]):
            raise ValueError("a stream that is recalibrated has one session: begin another stream")
        self._streams.reset(0, session)
        self._repaired = self._streams.repaired

    def recalibrate(self) -> Learned | None:
        """Learns from the sentence that `finish` has ended, before `reset` begins the next one.

        Returns:
            What became of it; None where the stream is not recalibrated.

        Raises:
            ValueError: the sentence has not ended.
        """
        if self.recalibration is None:
            return None
        features, missing = self._streams.features(0), self.repaired - self._repaired
        learned = self.recalibration.learn(features, missing)
        self._streams.adapt(0, self.recalibration.adapter)
        return learned

    @property
    def seconds(self) -> Seconds:
        """Seconds spent since the stream was made."""
        return self._streams.seconds

    @property
    def steps(self) -> int:
        """Steps that the model made."""
        return self._streams.steps

    @property
    def repaired(self) -> int:
        """Values that were not finite, and became 0, the mean."""
        return self._streams.repaired
