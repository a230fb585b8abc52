"""What a word search starts from: a model's output for every frame of a split.

For a CTC head these are log-probabilities of the classes; for a transducer the encoder's frames,
which have a meaning only together with its predictor and joint network.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32, Int

from modessm_jax.data.batches import Batch
from modessm_jax.data.recordings import Key, describe, list_trials
from modessm_jax.data.validation import DataError
from modessm_jax.decoding.transducer import Transducer, greedy
from modessm_jax.evaluation.scoring import over_batches, transducer_of
from modessm_jax.losses.transducer import Joint
from modessm_jax.models.outputs import Outputs
from modessm_jax.phonemes import BLANK
from modessm_jax.runs.load import Run, build_shapes, read_split
from modessm_jax.runs.sessions import Choice
from modessm_jax.runtime.keys import Purpose, root
from modessm_jax.runtime.mesh import data_mesh
from modessm_jax.sequence import Sequence


@dataclass(frozen=True, eq=False)
class Posterior:
    """One trial: its frames, and the sentence and corpus where known."""

    key: Key
    sentence: str | None
    corpus: str | None
    frames: Float32[np.ndarray, "frames width"]  # natural log-probabilities, or the encoder's
    phonemes: list[int]  # decoded greedily

    @property
    def name(self) -> str:
        """The trial's name for people to read."""
        return describe(self.key)


@dataclass(frozen=True, eq=False)
class RunTransducer:
    """The parameters of a run's `Transducer`, which unlike its functions can be pickled."""

    config: dict[str, Any]
    channels: int
    sessions: int
    params: Any  # NumPy arrays, of the whole model
    joint: Joint  # NumPy arrays

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
    """Every trial of a split, in the order of recording."""

    split: str
    trials: list[Posterior]
    transducer: RunTransducer | None = None  # whose encoder gave the frames; None: a CTC head did

    @property
    def sentences(self) -> dict[int, str]:
        """The sentences to compare with, by the index of their trial."""
        found = ((index, trial.sentence) for index, trial in enumerate(self.trials))
        return {index: sentence for index, sentence in found if sentence is not None}

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

    One model decoding several noisy copies of the data is the cheapest ensemble there is: Yoon et
    al. 2026, bioRxiv 2026.06.02.729705.
    """

    deviation: float  # of features with deviation 1
    seed: int

    def added_to(self, features: Sequence, trial: Int[Array, "batch"]) -> Sequence:
        """The noisy copy of `[batch, time, channels]`; padding stays as it is."""
        of_trial = jax.vmap(partial(jax.random.fold_in, root(self.seed, Purpose.NOISE)))(trial)
        draw = partial(jax.random.normal, shape=features.values.shape[1:])
        noise = self.deviation * jax.vmap(draw)(of_trial)
        return features.with_values(features.values + noise * features.mask[:, :, None])


def posteriors_of(
    run: Run,
    split: str,
    data_root: str | Path | None = None,
    *,
    choice: Choice | None = None,
    head: str = "ctc",
    noise: Noise | None = None,
    denoise: bool = False,
) -> Posteriors:
    """Runs the best model of a run over a split of its data, up to the head that is to be searched.

    Args:
        run: as for `read_split`, like the split, the root of the data and the sessions.
        head: "ctc", or "rnnt" for the encoder's frames and the transducer.
        noise: to add to the features.
        denoise: whether the flow bridge denoises the features.

    Raises:
        ValueError: the model has no transducer.
        DataError: the data are missing or unfit, or have no session that can be scored.
    """
    predict = run.functional.predict if head == "rnnt" else None
    if head == "rnnt" and predict is None:
        raise ValueError(
            f"model.name = {run.config['model']['name']!r} has no transducer; search its CTC head, "
            "or train a modessm"
        )
    further = {"denoise": True} if denoise else {}

    def score(params: Any, batch: Batch) -> tuple[Sequence, Sequence | None, Joint | None]:
        if noise is not None and noise.deviation:
            batch = replace(batch, features=noise.added_to(batch.features, batch.trial))
        outputs = run.functional.apply(params, batch.features, batch.session, **further)
        if predict is None:
            return log_probabilities(outputs), None, None
        found: Any = outputs.transducer
        joint = Joint(found.kernel, found.bias)
        frames = found.encoder.with_values(found.encoder.values.astype(jnp.float32))
        return frames, greedy(transducer_of(predict, params, joint), found.encoder), joint

    recordings, batches = read_split(run, split, data_root, choice)
    scorer = over_batches(score, data_mesh())
    trials: dict[int, Posterior] = {}
    joint = None
    for batch in batches:
        sequence, labels, joint = jax.device_get(scorer(run.params, batch))
        for row, index in enumerate(batch.trial.tolist()):
            if index >= 0:
                trial = recordings.trials[index]
                key = trial.session, trial.block, trial.number
                frames = sequence.values[row, : sequence.mask[row].sum()].copy()
                phonemes = (
                    best_path(frames)[0] if labels is None else labels.values[row, labels.mask[row]]
                )
                trials[index] = Posterior(
                    key, trial.sentence, trial.corpus, frames, phonemes.tolist()
                )
    transducer = None
    if joint is not None:
        params = jax.device_get(run.params)
        transducer = RunTransducer(run.config, run.channels, len(run.sessions), params, joint)
    return Posteriors(split, [trials[index] for index in sorted(trials)], transducer)


def posteriors_from(
    emissions: Mapping[Key, Float32[np.ndarray, "frames classes"]],
    split: str,
    data_root: str | Path,
) -> Posteriors:
    """Joins log-probabilities that some model gave before with the sentences of the data.

    Args:
        emissions: log-probabilities by trial, such as `read_official_logits` gives.
        split: the one they are of: "train", "val" or "test".
        data_root: where the data are; no features are read.

    Raises:
        DataError: the data are missing or unfit, or hold other trials than the emissions.
    """
    index = list_trials(data_root, split)
    lacking = [key for key in index if key not in emissions]
    strange = [key for key in emissions if key not in index]
    for keys, problem in ((lacking, "are missing"), (strange, f"are none of {split}")):
        if keys:
            raise DataError(
                f"of the emissions, {len(keys)} trials {problem} in {data_root}, such as "
                f"{describe(keys[0])}. Give the emissions of this split, all of them."
            )
    trials = [
        Posterior(key, sentence, None, emissions[key], best_path(emissions[key])[0].tolist())
        for key, sentence in index.items()
    ]
    return Posteriors(split, trials)


def log_probabilities(outputs: Outputs) -> Sequence:
    """Natural log-probabilities of the phonemes, float32 [batch, frames, classes]."""
    logits = outputs.logits["phoneme"]
    return logits.with_values(jax.nn.log_softmax(logits.values.astype(jnp.float32)))


def best_path(
    log_probabilities: Float32[np.ndarray, "frames classes"],
) -> tuple[Int[np.ndarray, "phonemes"], Int[np.ndarray, "phonemes 2"]]:
    """Greedy CTC decoding: the best class of every frame, repeats merged, then blanks removed.

    Returns:
        Phoneme ids; and of each the first and one past the last of its frames, on the single most
        likely path, which is also the best alignment of these phonemes.
    """
    best = log_probabilities.argmax(axis=1)
    edges = np.flatnonzero(np.diff(best, prepend=-1, append=-1))
    spans = np.stack([edges[:-1], edges[1:]], axis=1)
    spans = spans[best[spans[:, 0]] != BLANK]
    return best[spans[:, 0]], spans
