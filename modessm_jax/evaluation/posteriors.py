"""What a model says about every frame of a split: the input of the searches for words.

For a CTC head those are log-probabilities of the classes, for a transducer the encoder's frames,
which mean something only together with its predictor and joint network.

A trained run's predictor and joint network, in a form that other processes can be given.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32, Int

from modessm_jax.data.batches import Batch
from modessm_jax.data.recordings import Key, Trial, describe, read_index
from modessm_jax.data.validation import DataError
from modessm_jax.decoding.transducer import Transducer
from modessm_jax.decoding.transducer_greedy import greedy
from modessm_jax.evaluation.scoring import transducer_of
from modessm_jax.losses.transducer import Joint
from modessm_jax.phonemes import BLANK
from modessm_jax.runs.load import Run, build_shapes, read_split
from modessm_jax.runtime.mesh import data_mesh, replicated, split_over_batch
from modessm_jax.sequence import Sequence


@dataclass(frozen=True, eq=False)
class Posterior:
    """Of one trial: what is to be searched, and the sentence and corpus where known."""

    key: Key
    sentence: str | None
    corpus: str | None
    frames: Float32[np.ndarray, "frames width"]  # natural log-probabilities, or the encoder's
    phonemes: list[int]  # as read greedily

    @property
    def name(self) -> str:
        """The trial's name for people to read."""
        return describe(self.key)


@dataclass(frozen=True, eq=False)
class RunTransducer:
    """What a run's `Transducer` is made of; unlike its functions, this can be pickled."""

    config: dict[str, Any]
    channels: int
    sessions: int
    params: Any  # NumPy arrays, of the whole model
    joint: Joint  # NumPy arrays

    @classmethod
    def of(cls, run: Run, joint: Joint) -> "RunTransducer":
        """That of a run whose model has one, with the joint network that its `Outputs` give."""
        params, joint = jax.device_get((run.params, joint))
        return cls(run.config, run.channels, len(run.sessions), params, joint)

    def functions(self) -> Transducer:
        """The transducer."""
        built = build_shapes(self.config, self.channels, self.sessions)
        predict: Any = built.predict
        return transducer_of(predict, *jax.device_put((self.params, self.joint)))

    @property
    def digest(self) -> str:
        """A checksum of every parameter."""
        sha = hashlib.sha256()
        for path, leaf in jax.tree_util.tree_leaves_with_path((self.params, self.joint)):
            sha.update(f"{jax.tree_util.keystr(path)} {leaf.shape} {leaf.dtype}".encode())
            sha.update(np.ascontiguousarray(leaf).tobytes())
        return sha.hexdigest()


@dataclass(frozen=True)
class Posteriors:
    """Of every trial of a split, in the order of recording."""

    split: str
    trials: list[Posterior]
    transducer: RunTransducer | None = None  # whose encoder's frames these are; None: of CTC

    @property
    def labelled(self) -> bool:
        """Whether every trial has a sentence to compare with."""
        return all(trial.sentence is not None for trial in self.trials)

    @cached_property
    def digest(self) -> str:
        """A checksum of the trials, their sentences and every number that is searched."""
        sha = hashlib.sha256(self.split.encode())
        for trial in self.trials:
            values = np.ascontiguousarray(trial.frames)
            sha.update(f"{trial.name} {trial.sentence!r} {values.shape}".encode())
            sha.update(values.tobytes())
        if self.transducer is not None:
            sha.update(self.transducer.digest.encode())
        return sha.hexdigest()


class Noise(NamedTuple):
    """White Gaussian noise in every feature of every bin, the same for a trial whenever it is read.

    One model that hears several noisy copies of the data is the cheapest ensemble there is: Yoon
    et al. 2026, bioRxiv 2026.06.02.729705.
    """

    deviation: float  # of features with deviation 1
    seed: int

    def added_to(self, features: Sequence, trial: Int[Array, "batch"]) -> Sequence:
        """The noisy copy of `[batch, time, channels]`; padding stays as it is."""
        of_trial = jax.vmap(partial(jax.random.fold_in, jax.random.key(self.seed)))(trial)
        draw = partial(jax.random.normal, shape=features.values.shape[1:])
        noise = self.deviation * jax.vmap(draw)(of_trial)
        return features.with_values(features.values + noise * features.mask[:, :, None])


CLEAN = Noise(0.0, 0)


def posteriors_of(
    run: Run,
    split: str,
    data_root: str | Path | None = None,
    noise: Noise = CLEAN,
    **further: Any,
) -> Posteriors:
    """Runs the best model of a run over a split of its data, up to its CTC head.

    Args:
        run: from `load_run`.
        split: "train", "val" or "test".
        data_root: where the data are, if not where they were in training.
        noise: to add to the features.
        further: arguments for the model, such as `denoise=True`.

    Raises:
        DataError: the data are missing or unfit, or have a session the model was not trained on.
    """

    def score(params: Any, batch: Batch) -> tuple[tuple[Sequence, ...], None]:
        outputs = run.functional.apply(params, batch.features, batch.session, **further)
        logits = outputs.logits["phoneme"]
        return (logits.with_values(jax.nn.log_softmax(logits.values.astype(jnp.float32))),), None

    found, _ = _run_over(run, split, data_root, noise, score)
    return Posteriors(split, [_heard(trial, each, merged(each)) for trial, (each,) in found])


def encodings_of(
    run: Run,
    split: str,
    data_root: str | Path | None = None,
    noise: Noise = CLEAN,
    **further: Any,
) -> Posteriors:
    """Runs the best model up to its transducer's joint network; otherwise as `posteriors_of`.

    Raises:
        ValueError: the model has no transducer.
    """
    predict = run.functional.predict
    if predict is None:
        raise ValueError(
            f"model.name = {run.config['model']['name']!r} has no transducer; search its CTC head, "
            "or train a modessm"
        )

    def score(params: Any, batch: Batch) -> tuple[tuple[Sequence, ...], Joint]:
        outputs = run.functional.apply(params, batch.features, batch.session, **further)
        found: Any = outputs.transducer
        joint = Joint(found.kernel, found.bias)
        labels = greedy(transducer_of(predict, params, joint), found.encoder)
        frames = found.encoder.with_values(found.encoder.values.astype(jnp.float32))
        return (frames, labels), joint

    found, joint = _run_over(run, split, data_root, noise, score)
    heard = [_heard(trial, frames, phonemes) for trial, (frames, phonemes) in found]
    return Posteriors(split, heard, RunTransducer.of(run, joint))


def _run_over(
    run: Run,
    split: str,
    data_root: str | Path | None,
    noise: Noise,
    score: Callable[[Any, Batch], tuple[tuple[Sequence, ...], Any]],
) -> tuple[list[tuple[Trial, tuple[np.ndarray, ...]]], Any]:
    """Every trial with what `score` says of it, padding cut off; and what else it gives, once."""
    recordings, batches = read_split(run, split, data_root)
    mesh = data_mesh()
    everywhere = replicated(mesh)

    def hear(params: Any, batch: Batch) -> tuple[tuple[Sequence, ...], Any]:
        if noise.deviation:
            noisy = noise.added_to(batch.features, batch.trial)
            batch = replace(batch, features=noisy)
        return score(params, batch)

    scorer = jax.jit(
        hear, in_shardings=(everywhere, split_over_batch(mesh)), out_shardings=everywhere
    )
    found: dict[int, tuple[np.ndarray, ...]] = {}
    rest = None
    for batch in batches:
        sequences, rest = jax.device_get(scorer(run.params, batch))
        for row, index in enumerate(batch.trial.tolist()):
            if index >= 0:
                cut = (each.values[row, : each.mask[row].sum()].copy() for each in sequences)
                found[index] = tuple(cut)
    return [(trial, found[index]) for index, trial in enumerate(recordings.trials)], rest


def _heard(trial: Trial, frames: np.ndarray, phonemes: np.ndarray) -> Posterior:
    key = trial.session, trial.block, trial.number
    return Posterior(key, trial.sentence, trial.corpus, frames, phonemes.tolist())


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
    return Posteriors(
        split,
        [
            Posterior(key, index[key], None, emissions[key], merged(emissions[key]).tolist())
            for key in index
        ],
    )


def merged(
    log_probabilities: Float32[np.ndarray, "frames classes"],
) -> Int[np.ndarray, "phonemes"]:
    """The best class of every frame, repeats merged, then blanks removed."""
    best = log_probabilities.argmax(axis=1)
    best = best[np.diff(best, prepend=BLANK) != 0]
    return best[best != BLANK]
