"""The plan of a simulated data set: sessions, blocks, speaking modes, sentences and seeds."""

from dataclasses import dataclass
from datetime import date, timedelta
from enum import IntEnum

import numpy as np
from jaxtyping import Int32

from modessm_jax.simulate.sentences import draw_sentences, pronounce, pronunciations

SPLITS = ("train", "val", "test")
LABEL_WIDTH = 500  # of the padded label and transcription arrays of T15's files
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
class Prompt:
    """What is said in a trial: its number in the block, its split, its sentence and phonemes."""

    number: int
    split: str
    sentence: str
    phonemes: Int32[np.ndarray, "phonemes"]


@dataclass(frozen=True)
class Block:
    """Trials recorded in one go, in one mode."""

    number: int
    mode: Mode
    prompts: tuple[Prompt, ...]


@dataclass(frozen=True)
class Session:
    """The blocks of a day."""

    name: str
    day: date
    blocks: tuple[Block, ...]

    @property
    def splits(self) -> list[str]:
        """The splits that it has trials of."""
        found = {prompt.split for block in self.blocks for prompt in block.prompts}
        return [split for split in SPLITS if split in found]


@dataclass(frozen=True)
class Plan:
    """What is said, and the electrodes that record it.

    Raises:
        ValueError: `tuning_loss` is not a fraction.
    """

    sessions: tuple[Session, ...]  # by day
    electrodes: int
    seed: int
    tuning_loss: float = TUNING_LOSS  # in a week

    def __post_init__(self) -> None:
        if not 0 <= self.tuning_loss < 1:
            raise ValueError(f"tuning_loss is {self.tuning_loss}; give 0 or more, and below 1")

    @property
    def trials(self) -> int:
        """Trials of the whole data set."""
        return sum(len(block.prompts) for session in self.sessions for block in session.blocks)


@dataclass(frozen=True)
class Sizes:
    """The size of a data set: sentences are per session, words per sentence."""

    sessions: int
    train: int
    val: int
    test: int
    min_words: int
    max_words: int


def drawn(sizes: Sizes, *, electrodes: int, seed: int, tuning_loss: float = TUNING_LOSS) -> Plan:
    """Sessions of sentences of the grammar; no sentence is twice in a data set.

    As in the benchmarks, training sentences have blocks of their own, and validation and test
    sentences share blocks. Sessions are three days to two weeks apart.

    Raises:
        ValueError: the grammar holds too few sentences, or `tuning_loss` is not a fraction.
    """
    gaps = generator(seed, Stream.CALENDAR).integers(3, 15, sizes.sessions)
    days = [_FIRST_DAY + timedelta(days=int(n)) for n in np.cumsum(gaps) - gaps[0]]
    count = sizes.sessions * (sizes.train + sizes.val + sizes.test)
    words = {"min_words": sizes.min_words, "max_words": sizes.max_words}
    sentences = iter(draw_sentences(generator(seed, Stream.SENTENCES), count, **words))

    def prompt(number: int, split: str) -> Prompt:
        sentence = next(sentences)
        return Prompt(number, split, sentence, pronounce(sentence, pronunciations()))

    sessions = []
    for index, day in enumerate(days):
        rng = generator(seed, Stream.MODES, index)
        modes = alternating_modes(rng)
        held_out = rng.permutation(["val"] * sizes.val + ["test"] * sizes.test).tolist()
        chunks = [*_chunks(["train"] * sizes.train), *_chunks(held_out)]
        blocks = [
            Block(number, modes[number % 2], tuple(prompt(*one) for one in enumerate(splits)))
            for number, splits in enumerate(chunks, 1)
        ]
        # The name sorts by date.
        sessions.append(Session(day.strftime("sim.%Y.%m.%d"), day, tuple(blocks)))
    return Plan(tuple(sessions), electrodes, seed, tuning_loss)


def alternating_modes(rng: np.random.Generator) -> tuple[Mode, Mode]:
    """The modes of a session's even and odd blocks: training and evaluation have both."""
    return (VOCALIZED, SILENT) if rng.integers(2) == 0 else (SILENT, VOCALIZED)


def _chunks(splits: list[str]) -> list[list[str]]:
    """Even blocks of at most `_BLOCK_TRIALS`, but at least two where there are two trials."""
    blocks = max(-(-len(splits) // _BLOCK_TRIALS), min(2, len(splits)))
    return [list(chunk) for chunk in np.array_split(np.array(splits, object), blocks or 1)][:blocks]
