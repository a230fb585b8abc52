"""A stream that decodes by rule, without a model: its output can be foretold from the bins."""

from typing import Any

import numpy as np

from modessm_jax.streaming.decoded import Decoded, News, Phoneme, Word

CHANNELS = 6
STRIDE = 4  # bins of a frame
WORDS = ("the", "quick", "brown", "fox", "jumps", "over", "a", "lazy", "dog")


class ScriptedStream:
    """Says a word for every 20 bins, one frame late, and "AH" for every 8; keeps what was pushed.

    A bin whose values are all 9 is an endpoint.
    """

    def __init__(self):
        self.sentences: list[np.ndarray] = []  # the bins of those that were finished
        self.reset()

    def reset(self, session: str | None = None) -> None:
        self.bins = np.zeros((0, CHANNELS), np.float32)

    def push(self, bins: np.ndarray) -> News:
        assert bins.dtype == np.float32 and not np.isinf(bins).any()
        before, self.bins = len(self.bins), np.concatenate([self.bins, bins])
        after = len(self.bins)
        frames = np.full((after // STRIDE - before // STRIDE, 41), np.log(0.5 / 40), np.float32)
        frames[:, 3] = np.log(0.5)
        said = [
            Phoneme("AH", 0.16 * k, 0.16 * k + 0.08, -0.7) for k in range(before // 8, after // 8)
        ]
        late = lambda end: max(0, end - 4) // 20  # noqa: E731
        words = [word(k) for k in range(late(before), late(after))]
        ends = bool(len(bins)) and bool((bins == 9).all(axis=1).any())
        return News(
            tuple(said), frames, tuple(words), (word(late(after)).word,) if after else (), ends
        )

    def finish(self) -> Decoded:
        self.sentences.append(self.bins)
        return expected(len(self.bins))


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
