"""One update: augment, run the model, compute the objectives, follow the gradient."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct
from jax.sharding import Mesh

from modessm_jax.data.batches import Batch
from modessm_jax.losses.cost import Cost, total
from modessm_jax.models.outputs import Outputs
from modessm_jax.phonemes import BLANK, CLASSES
from modessm_jax.runs.state import TrainState, averaged
from modessm_jax.runtime.compile_cache import Seeded
from modessm_jax.runtime.keys import Purpose, keys_of_step
from modessm_jax.runtime.mesh import (
    replicated,
    split_batch,
    split_over_batch,
    split_over_second_axis,
)
from modessm_jax.sequence import Sequence
from modessm_jax.training import objectives
from modessm_jax.training.stages import StagePlan

# (params, features, session [batch], hidden [batch, time], key, ...) -> Outputs: a model as a pure
# function of its parameters. It replaces hidden frames; the key drives dropout. Objectives may need
# further arguments, see `objectives.model_inputs`.
Apply = Callable[[Any, Sequence, Any, Any, Any], Outputs]
# (features, key, views) -> (features, hidden), the views of each trial one after the other.
Augment = Callable[[Sequence, Any, int], tuple[Sequence, Any]]
# (features, key) -> features as bad electrodes would have recorded them.
Corrupt = Callable[[Sequence, Any], Sequence]
# (params, step, batch, seed of the run) -> (loss, scalars, examples, gradient)
GradientOf = Callable[[Any, Any, Batch, Any], tuple[Any, dict[str, Any], "Examples", Any]]


def no_augmentation(features: Sequence, key: Any, views: int = 1) -> tuple[Sequence, Any]:
    """Leaves the features as they are and hides no frame."""
    del key
    features = _repeat(features, views)
    return features, jnp.zeros_like(features.mask)


@dataclasses.dataclass(frozen=True)
class StepSpec:
    """What the training steps of all stages of a run have in common."""

    apply: Apply  # the model
    normalize_by: str  # of the costs, see `modessm_jax.losses.cost.total`
    seed: int  # of the run
    mesh: Mesh  # devices; the batch is sharded over them
    augment: Augment = no_augmentation
    corrupt: Corrupt | None = None  # for the objective "flow"
    accumulate: int = 1  # micro-batches of one update
    tie_modes: bool = False  # trials of a block, in one micro-batch, share their speaking mode
    ema_decay: float = 0.0  # of the running average of the parameters; 0 where there is none
    former_rules: bool = False  # see `modessm_jax.runs.identity.keeps_former_rules`


@struct.dataclass
class StepReport:
    """Figures of one update; small, so that they can be fetched after every step."""

    scalars: dict[str, Any]  # float32 [] each
    infeasible: Any  # int32 [batch]: trial where an objective cannot be met, else -1
    # int32 [batch]: in a step that is skipped, the trials whose cost is not finite, or all of the
    # batch where each cost is and only the gradient is not; else -1.
    nonfinite: Any


@struct.dataclass
class Examples:
    """The costs of a batch, example by example."""

    costs: dict[str, Cost]
    frames: Any  # int32 [batch], of the encoder
    diagnostics: dict[str, Any]  # [batch] each


def shard_batch(batch: Batch, mesh: Mesh, accumulate: int = 1) -> Batch:
    """Moves a batch from host memory to the devices, each of which gets some of its rows.

    Raises:
      ValueError: the rows do not divide into micro-batches over the devices.
    """
    rows = batch.trial.shape[0]
    if rows % (accumulate * mesh.size):
        raise ValueError(
            f"data.batch_size is {rows}; it must be a multiple of training.accumulate "
            f"({accumulate}) times the number of devices ({mesh.size})"
        )
    return split_batch(batch, mesh)


class _Forward:
    """From parameters and a batch to the costs of its examples, and to their total."""

    def __init__(self, spec: StepSpec, plan: StagePlan):
        stage = plan.stage
        self.spec, self.plan = spec, plan
        self.weights = {name: weight for name, weight in stage.weights.items() if weight != 0.0}
        if not self.weights:
            raise ValueError(f"stage {stage.name}: no objective has a weight; give phoneme one")
        if objectives.FLOW in self.weights and spec.corrupt is None:
            raise ValueError(f"stage {stage.name}: the objective 'flow' needs config.corruption")
        self.views = objectives.views(self.weights)

    def inputs(self, step: Any, batch: Batch, seed: Any) -> tuple[tuple[Any, ...], Any]:
        """The augmented batch, and the key of dropout."""
        spec, views = self.spec, self.views
        keys = keys_of_step(seed, step, tagged=not spec.former_rules)
        features, hidden = spec.augment(batch.features, keys[Purpose.AUGMENTATION], views)
        corrupted = None
        if objectives.FLOW in self.weights and spec.corrupt is not None:
            corrupted = spec.corrupt(features, keys[Purpose.CORRUPTION])
        described = _repeat((batch.session, batch.block, batch.trial, batch.labels), views)
        part = (features, hidden, corrupted, *described)
        if views > 1:  # so that a micro-batch has all views of its trials
            part = _split_views(part, views)
        return part, keys[Purpose.DROPOUT]

    def examples(self, params: Any, part: tuple[Any, ...], key: Any) -> Examples:
        """The costs of the examples of a part of the batch."""
        spec, weights = self.spec, self.weights
        if self.views > 1:
            part = _flatten_views(part)
        features, hidden, corrupted, session, block, trial, labels = part
        params = jax.tree.map(
            lambda x, trains: x if trains else jax.lax.stop_gradient(x), params, self.plan.trained
        )
        further = objectives.model_inputs(weights, labels, corrupted)
        outputs = spec.apply(params, features, session, hidden, key, **further)
        block = block if spec.tie_modes else None
        trial = None if spec.former_rules else trial
        costs = objectives.costs_of(outputs, labels, weights, block, trial)
        strange = labels.mask & ((labels.values <= BLANK) | (labels.values >= CLASSES))
        strange = strange.any(axis=1)
        costs = {k: Cost(jnp.where(strange, jnp.nan, c.nats), c.valid) for k, c in costs.items()}
        rows = labels.mask.shape[0]
        frames = outputs.encoder.lengths.reshape(rows, -1)[:, 0]  # the same in every mode
        examples = Examples(costs, frames, outputs.diagnostics)
        if self.views == 1:
            return examples
        return _mean_over_views(_split_views(examples, self.views))

    def reduce(self, costs: Mapping[str, Cost], frames: Any, labels: Any) -> Any:
        """The loss, and the mean of each objective; `labels` are the lengths of the whole batch."""
        spec = self.spec
        of_trials = () if spec.former_rules else objectives.OF_TRIALS
        return total(costs, self.weights, frames, labels, spec.normalize_by, of_trials)


def make_loss(spec: StepSpec, plan: StagePlan) -> Any:
    """Builds `(params, step, batch, seed) -> (loss, (scalars, examples))` of a whole batch.

    Raises:
      ValueError: as `make_gradient` does.
    """
    forward = _Forward(spec, plan)

    def loss_of(params: Any, step: Any, batch: Batch, seed: Any) -> Any:
        part, key = forward.inputs(step, batch, seed)
        examples = forward.examples(params, part, jax.random.fold_in(key, 0))
        loss, scalars = forward.reduce(examples.costs, examples.frames, batch.labels.lengths)
        return loss, (scalars, examples)

    return loss_of


def make_gradient(spec: StepSpec, plan: StagePlan) -> GradientOf:
    """Builds `(params, step, batch, seed) -> (loss, scalars, examples, gradient)`.

    The result is a pure function of its arguments: randomness comes from `(seed, step)`, and
    augmentation sees the whole batch before it is split. With `accumulate` > 1 the gradient is
    summed over that many micro-batches, in one call, and equals the gradient of the whole batch:
    every cost is divided by counts over the whole batch. (Dropout draws anew for each micro-batch,
    and objectives over several trials stay within it: see `information_cost`, `marginal_cost`.)

    The costs are those of `objectives.costs_of`, for every objective with a weight. Labels that are
    no phonemes cost NaN: most losses would take them for others. Parameters that the stage does not
    train cost no backward pass.

    Raises:
      ValueError: no objective has a weight; when traced: a weight without a head of that name.
    """
    accumulate, forward = spec.accumulate, _Forward(spec, plan)
    weights = forward.weights
    of_whole = jax.value_and_grad(make_loss(spec, plan), has_aux=True)

    def whole(params: Any, step: Any, batch: Batch, seed: Any) -> Any:
        (loss, (scalars, examples)), gradient = of_whole(params, step, batch, seed)
        return loss, scalars, examples, gradient

    def in_parts(params: Any, step: Any, batch: Batch, seed: Any) -> Any:
        part, key = forward.inputs(step, batch, seed)
        labels = batch.labels.lengths
        # The reduction is linear in the nats, so each example's share of the loss is known from
        # validity and lengths alone. XLA drops all else from this first pass.
        parts = jax.tree.map(lambda x: _divide(x, accumulate, spec.mesh), part)
        keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(accumulate))

        def lengths(_: None, given: Any) -> Any:
            examples = forward.examples(params, *given)
            return None, ({k: c.valid for k, c in examples.costs.items()}, examples.frames)

        valid, frames = _rejoin(jax.lax.scan(lengths, None, (parts, keys))[1])

        def loss_of(nats: dict[str, Any]) -> Any:
            return forward.reduce({k: Cost(nats[k], valid[k]) for k in weights}, frames, labels)[0]

        shares = jax.grad(loss_of)({k: jnp.zeros(labels.shape, jnp.float32) for k in weights})
        shares = jax.tree.map(lambda x: _divide(x, accumulate, spec.mesh), shares)

        def add(gradient: Any, given: Any) -> Any:
            part, key, share = given

            def share_of_loss(params: Any) -> Any:
                examples = forward.examples(params, part, key)
                nats = [jnp.vdot(share[k], examples.costs[k].nats) for k in weights]
                return jnp.stack(nats).sum(), examples

            part_gradient, examples = jax.grad(share_of_loss, has_aux=True)(params)
            return jax.tree.map(jnp.add, gradient, part_gradient), examples

        zero = jax.tree.map(jnp.zeros_like, params)
        gradient, examples = jax.lax.scan(add, zero, (parts, keys, shares))
        examples = _rejoin(examples)
        loss, scalars = forward.reduce(examples.costs, examples.frames, labels)
        return loss, scalars, examples, gradient

    return whole if accumulate == 1 else in_parts


def make_step(spec: StepSpec, plan: StagePlan) -> Any:
    """Builds the jitted `(state, batch) -> (state, StepReport)`; the state it is given is donated.

    Parameters that the stage does not train stay as they are, their average and their optimiser's
    state included. So does everything but the count of steps where the loss or the norm of the
    gradient is not finite: such a step is skipped.

    Raises:
      ValueError: as `make_gradient` does.
    """
    gradient_of = make_gradient(spec, plan)

    def step(state: TrainState, batch: Batch, seed: Any) -> tuple[TrainState, StepReport]:
        loss, scalars, examples, gradient = gradient_of(state.params, state.step, batch, seed)
        norm = optax.tree.norm(gradient)
        finite = jnp.isfinite(loss) & jnp.isfinite(norm)
        rate = jnp.asarray(plan.schedule(state.step - state.begun), jnp.float32) * state.rate
        updates, opt_state = plan.optimizer.update(gradient, state.opt_state, state.params)
        params = optax.apply_updates(state.params, jax.tree.map(lambda x: rate * x, updates))
        ema = state.ema
        if ema is not None:
            # Each stage's average is its own: what it begins to train has none from before.
            new = averaged(ema, params, state.step - state.begun + 1, spec.ema_decay)
            ema = jax.tree.map(
                lambda new, old, trains: new if trains else old, new, ema, plan.trained
            )
        params, ema, opt_state = _choose(
            finite, (params, ema, opt_state), (state.params, state.ema, state.opt_state)
        )
        report = _report(loss, scalars, examples, batch.trial, finite)
        report.scalars["gradient_norm"] = norm
        report.scalars["learning_rate"] = rate
        return TrainState(state.step + 1, state.begun, params, ema, opt_state, state.rate), report

    everywhere = replicated(spec.mesh)
    program = jax.jit(
        step,
        in_shardings=(everywhere, split_over_batch(spec.mesh), everywhere),
        out_shardings=(everywhere, everywhere),
        donate_argnums=0,
    )
    # The seed as JAX takes any whole number for one.
    return Seeded(program, jax.device_put(np.int64(spec.seed).astype(np.int32), everywhere))


def _choose(finite: Any, new: Any, old: Any) -> Any:
    return jax.tree.map(lambda new, old: jnp.where(finite, new, old), new, old)


def _report(
    loss: Any, scalars: dict[str, Any], examples: Examples, trial: Any, finite: Any
) -> StepReport:
    """Summarises the examples; rows that only fill up the batch (trial -1) count for nothing."""
    real = trial >= 0
    valid = jnp.stack([cost.valid for cost in examples.costs.values()]).all(axis=0)
    sound = jnp.stack([jnp.isfinite(cost.nats) for cost in examples.costs.values()]).all(axis=0)
    suspects = real & ~sound
    suspects = jnp.where(suspects.any(), suspects, real) & ~finite
    infeasible = real & ~valid
    scalars = {
        "loss": loss,
        **scalars,
        "valid": (real & valid).sum(dtype=jnp.float32),
        "infeasible": infeasible.sum(dtype=jnp.float32),
        "skipped": 1.0 - finite.astype(jnp.float32),
    }
    count = jnp.maximum(real.sum(dtype=jnp.float32), 1.0)
    for name, values in examples.diagnostics.items():
        scalars[f"diagnostics/{name}"] = jnp.where(real, values, 0.0).sum() / count
    return StepReport(scalars, jnp.where(infeasible, trial, -1), jnp.where(suspects, trial, -1))


def _repeat(tree: Any, views: int) -> Any:
    """Every row `views` times, one after the other."""
    return tree if views == 1 else jax.tree.map(lambda x: jnp.repeat(x, views, axis=0), tree)


def _split_views(tree: Any, views: int) -> Any:
    """[batch * views, ...] -> [batch, views, ...]"""
    return jax.tree.map(lambda x: x.reshape(-1, views, *x.shape[1:]), tree)


def _flatten_views(tree: Any) -> Any:
    """[batch, views, ...] -> [batch * views, ...]"""
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), tree)


def _mean_over_views(examples: Examples) -> Examples:
    """Of [batch, views] costs and diagnostics; a trial is valid if all its views are."""
    return Examples(
        {k: Cost(c.nats.mean(axis=1), c.valid.all(axis=1)) for k, c in examples.costs.items()},
        examples.frames[:, 0],
        {name: values.mean(axis=1) for name, values in examples.diagnostics.items()},
    )


def _divide(x: Any, parts: int, mesh: Mesh) -> Any:
    """[batch, ...] -> [parts, batch / parts, ...]; part i takes rows i, i + parts, ...

    Dealing the rows out keeps each on the device that holds it.
    """
    dealt = jnp.swapaxes(x.reshape(x.shape[0] // parts, parts, *x.shape[1:]), 0, 1)
    return jax.lax.with_sharding_constraint(dealt, split_over_second_axis(mesh))


def _rejoin(tree: Any) -> Any:
    """Undoes `_divide` in every leaf."""
    return jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1).reshape(-1, *x.shape[2:]), tree)
