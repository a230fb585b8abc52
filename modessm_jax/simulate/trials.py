"""Simulated trials, block by block: phonemes to articulators to features."""

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
    Plan,
    Stream,
    generator,
)
from modessm_jax.simulate.electrodes import Electrodes, drifted, implant
from modessm_jax.simulate.recording import normalize_block, record, slow_drift
from modessm_jax.simulate.sentences import pronunciations

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
    durations: Int64[np.ndarray, "phonemes_and_lead_in"]
    articulators: Float32[np.ndarray, "bins articulator"]


class _Speaker:
    """Turns phonemes into articulator trajectories."""

    def __init__(self) -> None:
        self.targets = articulator_targets()
        # A silence follows every word. Words a minute are converted to bins per phoneme by this.
        self.units_per_word = 1 + float(
            np.mean([len(sounds) for sounds in pronunciations().values()])
        )

    def utter(
        self, rng: np.random.Generator, phonemes: Int32[np.ndarray, "phonemes"], mode: Mode
    ) -> _Utterance:
        bins_per_phoneme = BINS_PER_MINUTE / mode.words_per_minute / self.units_per_word
        durations = draw_durations(rng, phonemes, bins_per_phoneme=bins_per_phoneme)
        durations = np.concatenate([rng.integers(*_LEAD_IN, 1), durations])
        spoken = np.concatenate([np.array([SILENCE], np.int32), phonemes])
        return _Utterance(durations, trajectory(spoken, durations, self.targets))


def simulate(plan: Plan) -> Iterator[list[SimulatedTrial]]:
    """One list of trials per block, in the order of recording; the same for the same plan.

    Raises:
        ValueError: the electrodes cannot be divided among four arrays.
    """
    speaker = _Speaker()
    electrodes = implant(plan.seed, plan.electrodes)
    for index, session in enumerate(plan.sessions):
        if index:
            weeks = (session.day - plan.sessions[index - 1].day).days / 7
            electrodes = drifted(electrodes, weeks, plan.seed, index, tuning_loss=plan.tuning_loss)
        for block in session.blocks:
            yield _trials(plan.seed, index, session.name, block, speaker, electrodes)


def _trials(
    seed: int, session: int, name: str, block: Block, speaker: _Speaker, electrodes: Electrodes
) -> list[SimulatedTrial]:
    levels = slow_drift(generator(seed, Stream.BLOCK, session, block.number), len(block.prompts))
    utterances, recorded = [], []
    for (before, after), prompt in zip(pairwise(levels), block.prompts, strict=True):
        rng = generator(seed, Stream.TRIAL, session, block.number, prompt.number)
        utterance = speaker.utter(rng, prompt.phonemes, block.mode)
        progress = np.linspace(0, 1, len(utterance.articulators), dtype=np.float32)[:, None]
        drift = before + progress * (after - before)
        recorded.append(record(rng, utterance.articulators, drift, electrodes, block.mode))
        utterances.append(utterance)
    return [
        SimulatedTrial(
            session=name,
            block=block.number,
            number=prompt.number,
            split=prompt.split,
            mode=block.mode.name,
            sentence=prompt.sentence,
            phonemes=prompt.phonemes,
            durations=utterance.durations,
            features=features,
        )
        for prompt, utterance, features in zip(
            block.prompts, utterances, normalize_block(recorded), strict=True
        )
    ]
