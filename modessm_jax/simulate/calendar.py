"""The plan of a simulated data set: sessions, blocks, speaking modes, sentences and seeds."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from enum import IntEnum

import numpy as np

from modessm_jax.simulate.sentences import draw_sentences

SPLITS = ("train", "val", "test")
_FIRST_DAY = date(2025, 1, 7)
_BLOCK_TRIALS = 20
# The part of the tuning that electrodes lose in a week. docs/data.md says what it was set by.
TUNING_LOSS = 0.08


class Stream(IntEnum):
    """The purpose of a random number generator; no two purposes share random numbers."""

    SENTENCES = 0
    CALENDAR = 1
    IMPLANT = 2
    DRIFT = 3
    MODES = 4
    BLOCK = 5
    TRIAL = 6


def generator(seed: int, stream: Stream, *indices: int) -> np.random.Generator:
    """The generator of one stream; `indices` are session, block and trial, as far as they apply."""
    return np.random.default_rng([seed, stream, *indices])


@dataclass(frozen=True)
class Mode:
    """A way of speaking: words a minute, and how strongly speech modulates the firing rates."""

    name: str
    words_per_minute: float
    modulation: float


# Rates of participant T15; silent speech moves the articulators less and faster.
VOCALIZED = Mode("vocalized", 30.0, 1.0)
SILENT = Mode("silent", 50.0, 0.8)


@dataclass(frozen=True)
class Sizes:
    """The size of a data set, and its drift: sentences are per session, words per sentence.

    Raises:
        ValueError: `tuning_loss` is not a fraction.
    """

    sessions: int
    train: int
    val: int
    test: int
    electrodes: int
    min_words: int
    max_words: int
    seed: int
    tuning_loss: float = TUNING_LOSS  # in a week

    def __post_init__(self) -> None:
        if not 0 <= self.tuning_loss < 1:
            raise ValueError(f"tuning_loss is {self.tuning_loss}; give 0 or more, and below 1")

    @property
    def trials(self) -> int:
        """Trials of a whole data set."""
        return self.sessions * (self.train + self.val + self.test)


@dataclass(frozen=True)
class Block:
    """Trials recorded in one go, in one mode; each trial is a split and a sentence."""

    number: int
    mode: Mode
    trials: tuple[tuple[str, str], ...]


def session_days(sizes: Sizes) -> list[date]:
    """The days of the sessions, three days to two weeks apart."""
    gaps = generator(sizes.seed, Stream.CALENDAR).integers(3, 15, sizes.sessions)
    return [_FIRST_DAY + timedelta(days=int(n)) for n in np.cumsum(gaps) - gaps[0]]


def session_name(day: date) -> str:
    """The session's name, which sorts by date."""
    return day.strftime("sim.%Y.%m.%d")


def sessions_of_blocks(sizes: Sizes) -> Iterator[list[Block]]:
    """The blocks of each session, session by session; no sentence is twice in a data set.

    As in the benchmarks, training sentences have blocks of their own, and validation and test
    sentences share blocks. Modes alternate, the first drawn for each session, so that training
    and evaluation have both.

    Raises:
        ValueError: the grammar holds too few sentences.
    """
    sentences = iter(
        draw_sentences(
            generator(sizes.seed, Stream.SENTENCES),
            sizes.trials,
            min_words=sizes.min_words,
            max_words=sizes.max_words,
        )
    )
    for session in range(sizes.sessions):
        rng = generator(sizes.seed, Stream.MODES, session)
        first = int(rng.integers(2))
        held_out = rng.permutation(["val"] * sizes.val + ["test"] * sizes.test).tolist()
        chunks = [*_chunks(["train"] * sizes.train), *_chunks(held_out)]
        yield [
            Block(
                number,
                (VOCALIZED, SILENT)[(first + number) % 2],
                tuple((split, next(sentences)) for split in splits),
            )
            for number, splits in enumerate(chunks, 1)
        ]


def _chunks(splits: list[str]) -> list[list[str]]:
    """Even blocks of at most `_BLOCK_TRIALS`, but at least two where there are two trials."""
    blocks = max(-(-len(splits) // _BLOCK_TRIALS), min(2, len(splits)))
    return [list(chunk) for chunk in np.array_split(np.array(splits, object), blocks or 1)][:blocks]
