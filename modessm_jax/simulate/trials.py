"""Simulated trials, block by block: sentences to articulators to features."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Float32, Int32, Int64

from modessm_jax.phonemes import SILENCE
from modessm_jax.simulate.articulation import (
    BINS_PER_MINUTE,
    articulator_targets,
    draw_durations,
    trajectory,
)
from modessm_jax.simulate.calendar import (
    Block,
    Mode,
    Sizes,
    Stream,
    generator,
    session_days,
    session_name,
    sessions_of_blocks,
)
from modessm_jax.simulate.electrodes import Electrodes, drifted, implant
from modessm_jax.simulate.recording import normalize_block, record, slow_drift
from modessm_jax.simulate.sentences import pronounce, pronunciations

_LEAD_IN = (10, 25)  # bins of silence between the go cue and speech


@dataclass(frozen=True)
class SimulatedTrial:
    """One trial as its file has it, with the truth that the file lacks: mode and durations.

    `durations` are the bins of the silence before speech, then of every phoneme.
    """

    session: str
    block: int
    number: int
    split: str
    mode: str
    sentence: str
    phonemes: Int32[np.ndarray, "phonemes"]
    durations: Int64[np.ndarray, "phonemes_and_lead_in"]
    features: Float32[np.ndarray, "bins features"]

    @property
    def centres(self) -> Int64[np.ndarray, "phonemes"]:
        """The middle bin of every phoneme."""
        return (np.cumsum(self.durations) - self.durations // 2)[1:]


@dataclass(frozen=True)
class _Utterance:
    phonemes: Int32[np.ndarray, "phonemes"]
    durations: Int64[np.ndarray, "phonemes_and_lead_in"]
    articulators: Float32[np.ndarray, "bins articulator"]


class _Speaker:
    """Turns a sentence of the grammar into phonemes and articulator trajectories."""

    def __init__(self) -> None:
        self.known = pronunciations()
        self.targets = articulator_targets()
        # A silence follows every word. Words a minute are converted to bins per phoneme by this.
        self.units_per_word = 1 + float(np.mean([len(sounds) for sounds in self.known.values()]))

    def utter(self, rng: np.random.Generator, sentence: str, mode: Mode) -> _Utterance:
        phonemes = pronounce(sentence, self.known)
        bins_per_phoneme = BINS_PER_MINUTE / mode.words_per_minute / self.units_per_word
        durations = draw_durations(rng, phonemes, bins_per_phoneme=bins_per_phoneme)
        durations = np.concatenate([rng.integers(*_LEAD_IN, 1), durations])
        spoken = np.concatenate([np.array([SILENCE], np.int32), phonemes])
        return _Utterance(phonemes, durations, trajectory(spoken, durations, self.targets))


def simulate(sizes: Sizes) -> Iterator[list[SimulatedTrial]]:
    """One list of trials per block, in the order of recording; the same for the same `sizes`.

    Raises:
        ValueError: the grammar has fewer sentences than `sizes` need, or the electrodes cannot be
            divided among four arrays.
    """
    days = session_days(sizes)
    weeks = [0.0, *((later - earlier).days / 7 for earlier, later in pairwise(days))]
    speaker = _Speaker()
    electrodes = implant(sizes.seed, sizes.electrodes)
    for session, blocks in enumerate(sessions_of_blocks(sizes)):
        if session:
            electrodes = drifted(
                electrodes, weeks[session], sizes.seed, session, tuning_loss=sizes.tuning_loss
            )
        for block in blocks:
            yield _trials(
                sizes.seed, session, session_name(days[session]), block, speaker, electrodes
            )


def _trials(
    seed: int, session: int, name: str, block: Block, speaker: _Speaker, electrodes: Electrodes
) -> list[SimulatedTrial]:
    levels = slow_drift(generator(seed, Stream.BLOCK, session, block.number), len(block.trials))
    utterances, recorded = [], []
    for number, (_, sentence) in enumerate(block.trials):
        rng = generator(seed, Stream.TRIAL, session, block.number, number)
        utterance = speaker.utter(rng, sentence, block.mode)
        progress = np.linspace(0, 1, len(utterance.articulators), dtype=np.float32)[:, None]
        drift = levels[number] + progress * (levels[number + 1] - levels[number])
        recorded.append(record(rng, utterance.articulators, drift, electrodes, block.mode))
        utterances.append(utterance)
    return [
        SimulatedTrial(
            session=name,
            block=block.number,
            number=number,
            split=split,
            mode=block.mode.name,
            sentence=sentence,
            phonemes=utterances[number].phonemes,
            durations=utterances[number].durations,
            features=features,
        )
        for number, ((split, sentence), features) in enumerate(
            zip(block.trials, normalize_block(recorded), strict=True)
        )
    ]
