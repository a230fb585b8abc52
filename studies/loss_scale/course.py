"""The costs of CTC and RNN-T along a training run."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from modessm_jax.data.batches import Batch
from modessm_jax.losses.cost import RULES, total
from modessm_jax.models.build import Functional
from modessm_jax.runs.checkpoints import CheckpointError, load_weights, steps_in
from modessm_jax.runs.load import Run, build_model, load_run, read_split
from modessm_jax.training import objectives
from studies.loss_scale.measure import BOTH, CTC, RNNT, Pair
from studies.shared import read_log


class Point(NamedTuple):
    """The costs of a checkpoint's model on validation trials."""

    step: int
    stage: str  # of the last update
    costs: dict[str, Pair]  # by each rule of normalisation
    gradients: Pair  # norms, for the costs per frame, over the parameters that both costs reach


class Stage(NamedTuple):
    """Where a stage of a run begins."""

    name: str
    begun: int


class Course(NamedTuple):
    """The costs along a training run."""

    name: str  # of its folder, and of that of its data
    points: list[Point]
    shared: list[str]  # parts of the model in which there are parameters that both costs reach
    curve: list[tuple[int, Pair]]  # step, costs logged in training; NaN where not trained
    stages: list[Stage]


def along_run(workdir: Path, *, batches: int) -> Course:
    """Measures each checkpoint of a run, and its initial parameters, on the validation split.

    Nothing is augmented and no dropout applied, and the parameters are not averaged.

    Args:
      workdir: of a run of a model with a transducer; nothing is written to it.
      batches: how many validation batches to measure on, the longest trials first.

    Raises:
      CheckpointError: there is no run, no checkpoint, or a damaged one.
      DataError: the run's data are missing, unfit, or of other sessions.
      ValueError: the model has no transducer.
    """
    run = load_run(workdir)
    if run.functional.predict is None:
        raise ValueError(
            f"{workdir}: the model {run.config['model']['name']} has no transducer; give a run of "
            "configs/modessm.py"
        )
    held_out = _held_out(run, batches)
    probe = jax.jit(_make_course_probe(run.functional))
    folder = workdir / "checkpoints"
    initial = build_model(run.config, run.channels, len(run.sessions)).params
    steps = steps_in(folder)
    if not steps:
        raise CheckpointError(f"{folder}: no checkpoint here; train first")
    loaded = {step: load_weights(folder, initial, step) for step in steps}
    stages = [Stage(x["name"], x["begun"]) for x in loaded[steps[-1]].history.stages]
    # On a device, like the loaded parameters: otherwise the program would be compiled twice.
    models = {0: jax.device_put(initial, jax.devices()[0])}
    models |= {step: weights.params for step, weights in loaded.items()}
    points, shared = [], set()
    for step, params in models.items():
        before = [stage.name for stage in stages if stage.begun < step]
        costs, norms, reached = _point(probe, params, held_out)
        points.append(Point(step, before[-1] if before else "-", costs, norms))
        shared |= reached
    name = f"{workdir.name}, {Path(run.config['data']['root']).name}"
    return Course(name, points, sorted(shared), _curve(workdir), stages)


def _held_out(run: Run, batches: int) -> list[Batch]:
    _, found = read_split(run, "val")
    return [found[index] for index in range(min(batches, len(found)))]


def _make_course_probe(model: Functional) -> Callable[[Any, Batch], Any]:
    def probe(params: Any, batch: Batch) -> Any:
        wanted = objectives.model_inputs(BOTH, batch.labels, None)

        def losses(params: Any) -> tuple[Pair, tuple[Pair, dict[str, Pair]]]:
            outputs = model.apply(params, batch.features, batch.session, **wanted)
            costs = objectives.costs_of(outputs, batch.labels, BOTH)
            lengths = outputs.encoder.lengths, batch.labels.lengths
            valid = Pair(*(costs[name].valid.sum() for name in (CTC, RNNT)))

            def summed(rule: str) -> Pair:
                # Multiplied by the number of examples, so that batches add up to a mean over all.
                _, scalars = total(costs, BOTH, *lengths, rule)
                means = (scalars[f"loss/{name}"] for name in (CTC, RNNT))
                return Pair(*(mean * count for mean, count in zip(means, valid, strict=True)))

            return summed("frames"), (valid, {rule: summed(rule) for rule in RULES})

        _, pull_back, (valid, loss) = jax.vjp(losses, params, has_aux=True)
        one, zero = jnp.ones(()), jnp.zeros(())
        gradients = pull_back(Pair(one, zero))[0], pull_back(Pair(zero, one))[0]
        return loss, valid, gradients

    return probe


def _point(
    probe: Callable[[Any, Batch], Any], params: Any, batches: list[Batch]
) -> tuple[dict[str, Pair], Pair, set[str]]:
    """Costs by each rule, gradient norms, and the parts of the model that both gradients reach."""
    found = [jax.device_get(probe(params, batch)) for batch in batches]
    loss, valid, gradients = jax.tree.map(lambda *parts: sum(parts), *found)
    leaves, structure = jax.tree_util.tree_flatten_with_path(gradients[0])
    names = [jax.tree_util.keystr(path[:1], simple=True) for path, _ in leaves]
    of_ctc, of_rnnt = [leaf for _, leaf in leaves], structure.flatten_up_to(gradients[1])
    both = [a.any() and b.any() for a, b in zip(of_ctc, of_rnnt, strict=True)]

    def norm(leaves: list[Any], count: Any) -> float:
        squares = [np.vdot(x, x) for x, shared in zip(leaves, both, strict=True) if shared]
        return math.sqrt(sum(squares)) / float(count)

    return (
        {
            rule: Pair(float(of.ctc / valid.ctc), float(of.rnnt / valid.rnnt))
            for rule, of in loss.items()
        },
        Pair(norm(of_ctc, valid.ctc), norm(of_rnnt, valid.rnnt)),
        {name for name, shared in zip(names, both, strict=True) if shared},
    )


def _curve(workdir: Path) -> list[tuple[int, Pair]]:
    """The costs logged in training; of a step that was made twice, the later ones."""
    found = {}
    for line in read_log(workdir):
        if f"loss/{CTC}" in line:
            pair = Pair(line[f"loss/{CTC}"], line.get(f"loss/{RNNT}", math.nan))
            found[line["step"]] = pair
    return sorted(found.items())
