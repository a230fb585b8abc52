"""What is decoded: of a whole sentence, and what is new of one that is still being said."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32

from modessm_jax.data.validation import BIN_SECONDS

Times = tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Decoded:
    """What was decoded in one sentence.

    Attributes:
        phonemes: ARPAbet symbols, and " | " for the silence after a word: the best path of the CTC
            head, or of the transducer the labels of its greedy or its beam search.
        times: start and end of each phoneme in seconds from the first bin. Of CTC they are those
            of its frames on the most likely path, of a transducer those of the frame that emits
            it. A frame is as many bins of 20 ms as the encoder's stride.
        log_probabilities: of each phoneme, in nats; of CTC the mean over its frames.
        words: of the best sentence; empty without a lexicon.
        word_times: start and end of each word in seconds, silence left out.
    """

    phonemes: tuple[str, ...]
    times: Times
    log_probabilities: tuple[float, ...]
    words: tuple[str, ...] = ()
    word_times: Times = ()


class Phoneme(NamedTuple):
    """A phoneme, as in `Decoded`."""

    symbol: str
    start: float  # seconds
    end: float
    log_probability: float


class Word(NamedTuple):
    """A word, as in `Decoded`."""

    word: str
    start: float  # seconds
    end: float


@dataclass(frozen=True)
class News:
    """What the bins of one push brought.

    Attributes:
        phonemes: those that ended. Those of all pushes, in order, are how the phonemes of the
            sentence begin; the times of a beam search may still change.
        frames: log-probabilities of the classes by the CTC head, in the new frames.
        words: those that can no longer change, because every hypothesis of the search has them.
            Their times are those of the best hypothesis; `finish` has the final ones.
        tentative: the words after all that can no longer change, as the best hypothesis has them.
        endpoint: whether the sentence has probably ended: something was said, and since then the
            CTC head has found blank or silence most likely in every frame, for the stream's pause.
    """

    phonemes: tuple[Phoneme, ...]
    frames: Float32[np.ndarray, "frames classes"]
    words: tuple[Word, ...]
    tentative: tuple[str, ...]
    endpoint: bool


def seconds(spans: Iterable[tuple[int, int]], stride: int, bins: int) -> Times:
    """Start and end in seconds of frames, first and one past the last, in a trial of `bins`."""
    edges = np.minimum(np.reshape([*spans], (-1, 2)) * stride, bins) * BIN_SECONDS
    return tuple((start, end) for start, end in edges.round(6).tolist())
