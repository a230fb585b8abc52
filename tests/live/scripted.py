"""A stream that decodes by rule, without a model: its output can be foretold from the bins."""

import time
from dataclasses import replace
from typing import Any

import numpy as np

from modessm_jax.streaming.decoded import Decoded, News, Phoneme, Word
from modessm_jax.streaming.recalibration import Learned

CHANNELS = 6
STRIDE = 4  # bins of a frame
WORDS = ("the", "quick", "brown", "fox", "jumps", "over", "a", "lazy", "dog")


class ScriptedStream:
    """Says a word for every 20 bins, one frame late, and "AH" for every 8; keeps what was pushed.

    A bin whose values are all 9 is an endpoint. Where `learns` is set, that many seconds pass while
    it learns from a sentence.
    """

    def __init__(self):
        self.sentences: list[np.ndarray] = []  # the bins of those that were finished
        self.learns: float | None = None
        self.reset()

    def reset(self, session: str | None = None) -> None:
        self.bins = np.zeros((0, CHANNELS), np.float32)
        self._said = self._frames = self._words = 0  # how many of each were given

    def push(self, bins: np.ndarray) -> News:
        assert bins.dtype == np.float32 and not np.isinf(bins).any()
        self.bins = np.concatenate([self.bins, bins])
        ends = bool(len(bins)) and bool((bins == 9).all(axis=1).any())
        return self._news(len(self.bins) // STRIDE, max(0, len(self.bins) - 4) // 20, ends)

    def flush(self) -> News:
        news = self._news(-(-len(self.bins) // STRIDE), len(self.bins) // 20, False)
        return replace(news, tentative=())

    def _news(self, frames: int, words: int, endpoint: bool) -> News:
        probabilities = np.full((frames - self._frames, 41), np.log(0.5 / 40), np.float32)
        probabilities[:, 3] = np.log(0.5)
        said = range(self._said, len(self.bins) // 8)
        new = [word(k) for k in range(self._words, words)]
        self._said, self._frames, self._words = said.stop, frames, words
        phonemes = tuple(Phoneme("AH", 0.16 * k, 0.16 * k + 0.08, -0.7) for k in said)
        tentative = (word(words).word,) if len(self.bins) else ()
        return News(phonemes, probabilities, tuple(new), tentative, endpoint)

    def finish(self) -> Decoded:
        self.sentences.append(self.bins)
        return expected(len(self.bins))

    def recalibrate(self) -> Learned | None:
        if self.learns is None:
            return None
        time.sleep(self.learns)
        return Learned(0.5, len(self.sentences) == 2, "", self.learns)


def word(k: int) -> Word:
    return Word(WORDS[k % len(WORDS)], 0.4 * k, 0.4 * k + 0.3)


def expected(bins: int) -> Decoded:
    """What a sentence of so many bins is decoded as."""
    words = [word(k) for k in range(bins // 20)]
    times = tuple((0.16 * k, 0.16 * k + 0.08) for k in range(bins // 8))
    return Decoded(
        ("AH",) * len(times),
        times,
        (-0.7,) * len(times),
        tuple(one.word for one in words),
        tuple((one.start, one.end) for one in words),
    )


def bins_of(numbers: Any) -> np.ndarray:
    """Bins that can be told apart, by their numbers."""
    return np.sin(np.arange(CHANNELS)[None] + np.asarray(numbers, float)[:, None]).astype(
        np.float32
    )
