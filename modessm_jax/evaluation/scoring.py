"""Scoring a split: the CTC cost of the labels and the greedy phonemes of every trial."""

import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.sharding import Mesh
from jaxtyping import Array, Int, Key
from scipy.special import softmax

from modessm_jax.augmentation.augment import Corruption
from modessm_jax.data.batches import Batch, filled
from modessm_jax.data.recordings import Recordings
from modessm_jax.decoding.ctc import greedy, to_lists
from modessm_jax.decoding.transducer import Transducer, make_transducer
from modessm_jax.decoding.transducer import greedy as transducer_greedy
from modessm_jax.decoding.transducer_beam import Fusion, beam
from modessm_jax.evaluation.results import Evaluation, Example, TrialResult
from modessm_jax.losses.cost import Cost, total
from modessm_jax.losses.ctc import ctc_cost
from modessm_jax.losses.transducer import Joint
from modessm_jax.models.build import Functional, Predict
from modessm_jax.models.outputs import JointInputs
from modessm_jax.runs.load import Run, read_split
from modessm_jax.runs.sessions import Choice
from modessm_jax.runtime.keys import damage_root
from modessm_jax.runtime.mesh import data_mesh, replicated, split_batch, split_over_batch
from modessm_jax.runtime.watchdog import alive
from modessm_jax.sequence import Sequence


@struct.dataclass
class Scores:
    """What is computed of one batch on the device."""

    cost: Cost
    phonemes: Sequence  # int32 [batch, frames], of the CTC head
    logits: Sequence  # [batch, frames, classes]; fetched for the example alone
    rnnt: Sequence | None  # int32 [batch, labels] of the transducer, if there is one
    modes: Any  # [batch, modes], probabilities; None where the model has none


Scorer = Callable[[Any, Batch], Scores]


def check_abilities(
    model: Functional, *, width: int = 1, fused: bool = False, denoise: bool = False
) -> None:
    """Checks, before any data are read, that a model can be run with options of `make_scorer`.

    Raises:
      ValueError: the beam has no width, or none for a language model to choose from; or the model
        has no transducer, or no flow bridge.
    """
    if width < 1:
        raise ValueError(f"a beam of width {width} holds no hypothesis; give 1 (greedy) or more")
    if width > 1 and model.predict is None:
        raise ValueError("this model has no transducer for a beam to search; leave the beam away")
    if fused and width == 1:
        raise ValueError("a language model chooses among hypotheses: give a beam of 2 or more")
    if denoise and "flow" not in model.params:
        raise ValueError("this model has no flow bridge to denoise with; leave it away")


def make_scorer(
    model: Functional,
    mesh: Mesh,
    *,
    width: int = 1,
    fusion: Fusion | None = None,
    corruption: Corruption | None = None,
    damage: Key[Array, ""] | None = None,
    denoise: bool = False,
) -> Scorer:
    """Builds the jitted `(params, batch) -> Scores`; build it once, it compiles for each shape.

    Args:
      width: of the transducer's beam; 1 searches greedily.
      fusion: a language model of phonemes to search with.
      corruption: what bad electrodes do to the features; see `damaged`.
      damage: what it is drawn from; by default `damage_root()`.
      denoise: whether the flow bridge denoises the features.

    Raises:
      ValueError: see `check_abilities`.
    """
    check_abilities(model, width=width, fused=fusion is not None, denoise=denoise)
    further = {"denoise": True} if denoise else {}
    damage = damage_root() if damage is None else damage

    def score(params: Any, batch: Batch) -> Scores:
        features = batch.features
        if corruption is not None:
            features = damaged(features, batch.trial, corruption, damage)
        outputs = model.apply(params, features, batch.session, **further)
        logits, modes, rnnt = outputs.logits["phoneme"], outputs.log_modes, None
        if model.predict is not None and outputs.transducer is not None:
            rnnt = _search(params, model.predict, outputs.transducer, width, fusion)
        return Scores(
            cost=ctc_cost(logits, batch.labels),
            phonemes=greedy(logits),
            logits=logits,
            rnnt=rnnt,
            modes=None if modes is None else jnp.exp(modes),
        )

    return over_batches(score, mesh)


def over_batches(function: Callable[[Any, Batch], Any], mesh: Mesh) -> Callable[[Any, Batch], Any]:
    """Jits a function of (params, batch): the batch is divided among devices, the result is not.

    Where the devices do not divide the rows, filler rows complete them, in the result as well.
    """
    everywhere = replicated(mesh)
    compiled = jax.jit(
        function, in_shardings=(everywhere, split_over_batch(mesh)), out_shardings=everywhere
    )
    return lambda params, batch: compiled(params, split_batch(filled(batch, mesh.size), mesh))


def damaged(
    features: Sequence, trial: Int[Array, "batch"], corruption: Corruption, key: Key[Array, ""]
) -> Sequence:
    """`[batch, time, channels]` as bad electrodes would have recorded them.

    A trial loses the same channels, and has the others moved as far, whichever trials are beside
    it; its noise is the same each time that it is padded to the same length.
    """

    def of_trial(features: Sequence, trial: Int[Array, ""]) -> Sequence:
        alone = jax.tree.map(lambda x: x[None], features)
        found = corruption(alone, jax.random.fold_in(key, trial))
        return jax.tree.map(lambda x: x[0], found)

    return jax.vmap(of_trial)(features, trial)


def transducer_of(predict: Predict, params: Any, joint: Joint) -> Transducer:
    """A model's predictor and joint network, ready for a search."""
    start, step = (partial(function, params) for function in (predict.initial_state, predict.step))
    return make_transducer(start, step, joint)


def _search(
    params: Any, predict: Predict, found: JointInputs, width: int, fusion: Fusion | None
) -> Sequence:
    """The transducer's best labels, int32 `[batch, labels]`."""
    transducer = transducer_of(predict, params, Joint(found.kernel, found.bias))
    if width == 1:
        return transducer_greedy(transducer, found.encoder)
    frames = found.encoder.mask.shape[1]
    best = beam(transducer, found.encoder, width=width, max_labels=frames, fusion=fusion)
    return Sequence.from_lengths(best.ids[:, 0], best.lengths[:, 0])


def evaluate_run(
    run: Run,
    split: str,
    data_root: str | Path | None = None,
    choice: Choice | None = None,
    **scoring: Any,
) -> Evaluation:
    """Reads a split for a run and scores its best model on it; see `read_split`, `make_scorer`.

    Raises:
        ValueError: the model cannot be scored with these options.
        DataError: the data are missing or unfit, or have no session that can be scored.
    """
    scorer = make_scorer(run.functional, data_mesh(), **scoring)
    recordings, batches = read_split(run, split, data_root, choice)
    rule = run.config["objective"]["normalize_by"]
    return evaluate(scorer, run.params, batches, recordings, normalize_by=rule)


def evaluate(
    scorer: Scorer,
    params: Any,
    batches: Iterable[Batch],
    recordings: Recordings,
    *,
    normalize_by: str = "frames",
) -> Evaluation:
    """Scores every trial of a split once.

    Args:
      batches: `EvaluationBatches` of the recordings.
      recordings: the split; without labels there are predictions but no metrics.
      normalize_by: the rule of `Evaluation.loss`, see `modessm_jax.losses.cost.total`.

    Raises:
      ValueError: the batches do not hold every trial exactly once.
    """
    start = time.perf_counter()
    # The trial of median length: the same in every evaluation of a split, so pictures compare.
    chosen = int(np.argsort(recordings.bins, kind="stable")[len(recordings) // 2])
    example: Example | None = None
    seen: list[int] = []
    results: dict[int, TrialResult] = {}
    started: Iterator[Any] = ((batch, scorer(params, batch)) for batch in batches)
    # In pairs, so that the host reads one batch while the device computes the next.
    for (batch, scores), _ in pairwise(chain(started, [None])):
        trials = batch.trial.tolist()
        seen.extend(index for index in trials if index >= 0)
        results.update(_results(batch, scores, recordings))
        if chosen in trials:
            values = np.asarray(scores.logits.values[trials.index(chosen)], np.float32)
            probabilities = softmax(values[: results[chosen].frames], axis=-1)
            stride = batch.features.mask.shape[1] // len(values)
            features = recordings.features(chosen)
            example = Example(results[chosen], features, probabilities, stride)
        alive()
    if example is None or sorted(seen) != list(range(len(recordings))):
        raise ValueError(
            f"the batches hold {len(seen)} trials, {len(set(seen))} of them different, but the "
            f"{recordings.split} split has {len(recordings)}; use EvaluationBatches of the split"
        )
    ordered = [results[index] for index in range(len(recordings))]
    loss = _loss(ordered, normalize_by) if recordings.labelled else None
    return Evaluation(recordings.split, ordered, loss, example, time.perf_counter() - start)


def _results(batch: Batch, scores: Scores, recordings: Recordings) -> dict[int, TrialResult]:
    """The results of the trials in a batch, by index."""
    cost, mask, modes = jax.device_get((scores.cost, scores.logits.mask, scores.modes))
    phonemes = to_lists(scores.phonemes)
    rnnt = None if scores.rnnt is None else to_lists(scores.rnnt)
    return {
        index: TrialResult(
            trial=recordings.trials[index],
            phonemes=phonemes[row],
            frames=int(mask[row].sum()),
            nats=float(cost.nats[row]),
            feasible=bool(cost.valid[row]),
            rnnt=None if rnnt is None else rnnt[row],
            modes=None if modes is None else modes[row].tolist(),
        )
        for row, index in enumerate(batch.trial.tolist())
        if index >= 0
    }


def _loss(trials: list[TrialResult], normalize_by: str) -> float:
    """The normalised phoneme loss of all trials."""
    cost = Cost(
        nats=jnp.asarray([result.nats for result in trials], jnp.float32),
        valid=jnp.asarray([result.feasible for result in trials]),
    )
    frames = jnp.asarray([result.frames for result in trials], jnp.int32)
    labels = jnp.asarray([len(result.reference) for result in trials], jnp.int32)
    loss, _ = total({"phoneme": cost}, {"phoneme": 1.0}, frames, labels, normalize_by)
    return float(loss)
