"""What both word searches share: their options, their hypotheses, and the final ranking."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

# In place of the logarithm of 0: differences of infinities are not numbers.
LOG_ZERO = -1e4


@dataclass(frozen=True)
class SearchOptions:
    """The width of a search and the weights of its scores; scores are natural logarithms (nats).

    Attributes:
        beam: hypotheses kept after each frame.
        beam_threshold: a hypothesis is dropped when its total is this many nats below the best one.
            15 has the word error rate of 50 in less than half the time, 12 a higher one
            (benchmarks/results/word_search.md).
        lm_weight: factor of the n-gram's log-probability.
        word_score: nats added for each word.
        acoustic_scale: factor of the acoustic log-probability.
        blank_penalty: divides the blank's probability, before scaling.
        nbest: the most hypotheses returned.

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

    def total(self, acoustic: Any, lm: Any, words: Any) -> Any:
        """The score that hypotheses are ranked by.

        Args:
            acoustic: log-probability of the alignment, with the blank's penalty; number or array.
            lm: log-probability of the words.
            words: how many there are.
        """
        return self.acoustic_scale * acoustic + self.lm_weight * lm + self.word_score * words


@dataclass(frozen=True)
class WordHypothesis:
    """A sentence and its scores in nats.

    Attributes:
        words: of the sentence.
        acoustic: log-probability of its best alignment (CTC) or label sequence (transducer), with
            the blank's penalty and without `acoustic_scale`.
        lm: log-probability of the words and the end of the sentence; 0 without an n-gram.
        total: see `SearchOptions.total`.
        times: for each word the first and one past the last frame of its phonemes on the best
            alignment, silence left out. Among equally likely alignments any one may be used.
        complete: False if the frames end inside a word that no hypothesis finishes; `words` are
            those before it, and `acoustic` includes its beginning.
    """

    words: tuple[str, ...]
    acoustic: float
    lm: float
    total: float
    times: tuple[tuple[int, int], ...]
    complete: bool = True


class Partial(NamedTuple):
    """The words of a stream's best hypothesis so far.

    Attributes:
        words: those that it has finished.
        times: of each the first and one past the last frame.
        stable: the first so many are those of every hypothesis in the beam, so that no later frame
            can change them.
    """

    words: tuple[str, ...]
    times: tuple[tuple[int, int], ...]
    stable: int


def rank(found: Iterable[tuple[float, WordHypothesis]], nbest: int) -> list[WordHypothesis]:
    """The `nbest` best hypotheses, best first, no two with the same words.

    Equal totals, such as those of homophones without an n-gram, are in alphabetical order.

    Args:
        found: scores and hypotheses, highest score first; read only as far as needed.
        nbest: the most to return.
    """
    by_words: dict[tuple[str, ...], WordHypothesis] = {}
    last = math.inf
    for score, hypothesis in found:
        if len(by_words) >= nbest and score < last:
            break
        last = score
        by_words.setdefault(hypothesis.words, hypothesis)
    return sorted(by_words.values(), key=lambda each: (-each.total, each.words))[:nbest]
