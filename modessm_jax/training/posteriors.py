"""What a model says about every frame of a split: the input of the searches for words."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float32

from modessm_jax.data.batch import Batch
from modessm_jax.data.index import Key, describe, read_index
from modessm_jax.data.validation import DataError
from modessm_jax.phonemes import BLANK
from modessm_jax.sequence import Sequence
from modessm_jax.training.mesh import data_mesh, replicated, split_over_batch
from modessm_jax.training.runs import Run, read_split


@dataclass(frozen=True, eq=False)
class Posterior:
    """Of one trial: natural log-probabilities, and the sentence and corpus where known."""

    key: Key
    sentence: str | None
    corpus: str | None
    log_probabilities: Float32[np.ndarray, "frames classes"]

    @property
    def name(self) -> str:
        """The trial's name for people to read."""
        return describe(self.key)

    @cached_property
    def phonemes(self) -> list[int]:
        """The best class of every frame, repeats merged, then blanks removed."""
        best = self.log_probabilities.argmax(axis=1).tolist()
        return [phoneme for phoneme, _ in groupby(best) if phoneme != BLANK]


@dataclass(frozen=True)
class Posteriors:
    """Of every trial of a split, in the order of recording."""

    split: str
    trials: list[Posterior]

    @property
    def labelled(self) -> bool:
        """Whether every trial has a sentence to compare with."""
        return all(trial.sentence is not None for trial in self.trials)

    @cached_property
    def digest(self) -> str:
        """A checksum of the trials, their sentences and every probability."""
        sha = hashlib.sha256(self.split.encode())
        for trial in self.trials:
            values = np.ascontiguousarray(trial.log_probabilities)
            sha.update(f"{trial.name} {trial.sentence!r} {values.shape}".encode())
            sha.update(values.tobytes())
        return sha.hexdigest()


def posteriors_of(
    run: Run, split: str, data_root: str | Path | None = None, **further: Any
) -> Posteriors:
    """Runs the best model of a run over a split of its data.

    Args:
        run: from `load_run`.
        split: "train", "val" or "test".
        data_root: where the data are, if not where they were in training.
        further: arguments for the model, such as `denoise=True`.

    Raises:
        DataError: the data are missing or unfit, or have a session the model was not trained on.
    """
    recordings, batches = read_split(run, split, data_root)

    def score(params: Any, batch: Batch) -> Sequence:
        outputs = run.functional.apply(params, batch.features, batch.session, **further)
        logits = outputs.logits["phoneme"]
        return logits.with_values(jax.nn.log_softmax(logits.values.astype(jnp.float32)))

    mesh = data_mesh()
    everywhere = replicated(mesh)
    scorer = jax.jit(
        score, in_shardings=(everywhere, split_over_batch(mesh)), out_shardings=everywhere
    )
    found: dict[int, np.ndarray] = {}
    for batch in batches:
        scores = scorer(run.params, batch)
        values, frames = np.asarray(scores.values), np.asarray(scores.mask).sum(axis=1)
        for row, index in enumerate(batch.trial.tolist()):
            if index >= 0:
                found[index] = values[row, : frames[row]].copy()
    trials = [
        Posterior((of.session, of.block, of.number), of.sentence, of.corpus, found[index])
        for index, of in enumerate(recordings.trials)
    ]
    return Posteriors(split, trials)


def posteriors_from(
    emissions: Mapping[Key, Float32[np.ndarray, "frames classes"]],
    split: str,
    data_root: str | Path,
) -> Posteriors:
    """Takes what some model said before, with the sentences of the data.

    Args:
        emissions: log-probabilities by trial, such as `read_official_logits` gives.
        split: the one they are of: "train", "val" or "test".
        data_root: where the data are; no features are read.

    Raises:
        DataError: the data are missing or unfit, or hold other trials than the emissions.
    """
    index = read_index(data_root, split)
    lacking = [key for key in index if key not in emissions]
    strange = [key for key in emissions if key not in index]
    for keys, problem in ((lacking, "are missing"), (strange, f"are none of {split}")):
        if keys:
            raise DataError(
                f"of the emissions, {len(keys)} trials {problem} in {data_root}, such as "
                f"{describe(keys[0])}. Give the emissions of this split, all of them."
            )
    return Posteriors(split, [Posterior(key, index[key], None, emissions[key]) for key in index])
