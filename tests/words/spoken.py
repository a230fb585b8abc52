"""Posteriors of a confident model over a lexicon with homophones, and files of them."""

import dataclasses
from pathlib import Path

import h5py
import numpy as np

from modessm_jax.decoding.transducer import Transducer
from modessm_jax.evaluation.posteriors import Posterior, Posteriors, RunTransducer, best_path
from modessm_jax.language import kneser_ney
from modessm_jax.language.lexicon import Lexicon
from modessm_jax.losses.transducer import Joint
from modessm_jax.phonemes import BLANK, CLASSES, SILENCE, phoneme_id
from tests.data.layout import write_trial
from tests.decoding.transducers import parrot


def ids(symbols: str) -> tuple[int, ...]:
    return tuple(phoneme_id(symbol) for symbol in symbols.split())


LEXICON = Lexicon(
    {
        "too": (ids("T UW"),),
        "two": (ids("T UW"),),
        "cats": (ids("K AE T S"),),
        "much": (ids("M AH CH"),),
    }
)
TRAINING = ["two cats", "too much", "two cats too", "two cats too much", "much too much"]
SENTENCES = ["two cats", "too much", "two cats too much", "much", "too much two cats", "cats"]


def write_lm(folder: Path) -> Path:
    """An n-gram that tells the homophones apart by what follows."""
    lm = folder / "lm.arpa"
    kneser_ney.train([line.split() for line in TRAINING], 2).write(lm)
    return lm


def log_probabilities(sentence: str) -> np.ndarray:
    """A frame for each phoneme and a blank after it, each with probability 0.9."""
    labels = [
        phoneme for word in sentence.split() for phoneme in (*LEXICON.words[word][0], SILENCE)
    ]
    frames = [frame for label in labels for frame in (label, BLANK)]
    values = np.full((len(frames), CLASSES), 0.1 / (CLASSES - 1), np.float32)
    values[np.arange(len(frames)), frames] = 0.9
    return np.log(values)


class Parrot(RunTransducer):
    """The rest of a transducer whose frames say what is to be said; see `parrot`."""

    def functions(self) -> Transducer:
        return parrot(0.9)


def encodings(split: str = "val") -> Posteriors:
    """The first of these sentences as a transducer's encoder gives them."""
    found = posteriors(split, SENTENCES[:2], labelled=split != "test")
    trials = [
        dataclasses.replace(trial, frames=(trial.frames > np.log(0.5)).astype(np.float32))
        for trial in found.trials
    ]
    return Posteriors(split, trials, Parrot({}, 0, 0, {}, Joint(np.zeros(1), np.zeros(1))))


def posteriors(
    split: str = "val", sentences: list[str] = SENTENCES, labelled: bool = True
) -> Posteriors:
    """Of two sessions and two corpora."""
    trials = []
    for number, sentence in enumerate(sentences):
        key = "ab"[2 * number // len(sentences)], 1, number
        said = sentence if labelled else None
        corpus = ["Switchboard", "Harvard"][number % 2]
        frames = log_probabilities(sentence)
        trials.append(Posterior(key, said, corpus, frames, best_path(frames)[0].tolist()))
    return Posteriors(split, trials)


def write_data(root: Path, split: str, sentences: list[str], session: str = "a") -> None:
    """Trials with these sentences, and features nobody reads; the test split tells no sentence."""
    (root / session).mkdir(parents=True, exist_ok=True)
    file = root / session / f"data_{split}.hdf5"
    for number, sentence in enumerate(sentences):
        write_trial(file, number, labels=None if split == "test" else [1])
        if split != "test":
            with h5py.File(file, "a") as handle:
                handle[f"trial_{number:04d}"].attrs["sentence_label"] = sentence
