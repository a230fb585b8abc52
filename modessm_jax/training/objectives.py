"""The objectives: the cost of each for every example of a batch, from the model's outputs."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from modessm_jax.losses.auxiliary import (
    consistency_cost,
    diphone_labels,
    flow_cost,
    label_smoothing_cost,
)
from modessm_jax.losses.cost import Cost
from modessm_jax.losses.ctc import ctc_cost
from modessm_jax.losses.mode import information_cost, marginal_cost
from modessm_jax.losses.transducer import Joint, transducer_cost
from modessm_jax.models.outputs import Outputs
from modessm_jax.sequence import Sequence

CONSISTENCY, DIPHONE, SMOOTHING = "consistency", "diphone", "label_smoothing"
RNNT, MODE, FLOW = "rnnt", "mode", "flow"
OF_TRIALS = (MODE,)  # do not grow with a trial's length


def views(weights: Mapping[str, float]) -> int:
    """How many augmented views of a trial the objectives compare."""
    return 2 if CONSISTENCY in weights else 1


def model_inputs(weights: Mapping[str, float], labels: Sequence, corrupted: Any) -> dict[str, Any]:
    """What the objectives need the model to be given beside the features, by argument."""
    inputs: dict[str, Any] = {}
    if RNNT in weights:
        inputs["labels"] = labels.values
    if MODE in weights:
        inputs["every_mode"] = True
    if FLOW in weights:
        inputs["corrupted"] = corrupted
    return inputs


def costs_of(
    outputs: Outputs,
    labels: Sequence,
    weights: Mapping[str, float],
    block: Any = None,
    trial: Any = None,
) -> dict[str, Cost]:
    """The cost of each objective that has a weight, for each row of the labels.

    A name among the model's `logits` is the CTC cost of that head for the phoneme labels ("diphone"
    for diphones). "rnnt" is the cost of the transducer; "label_smoothing" the distance of the
    phoneme head from uniform; "consistency" the disagreement of the phoneme heads of rows 2n and
    2n + 1, two views of a trial (CR-CTC); "flow" the flow matching cost of the flow bridge, whose
    denoised features the other costs are then computed from. With "mode" the model has run in every
    mode, and the likelihoods are summed over modes: of each trial by itself, or of trials with
    equal ids in `block` together, where rows with equal ids in `trial` are one witness.

    Raises:
      ValueError: a weight without a head of that name, or one that "mode" cannot go with.
    """
    modes = 1 if MODE not in weights else outputs.log_modes.shape[-1]
    repeated = jax.tree.map(lambda x: jnp.repeat(x, modes, axis=0), labels)

    def cost_of(name: str) -> Cost:
        if name == RNNT:
            return _rnnt_cost(outputs, repeated)
        if name in outputs.logits:
            of_head = diphone_labels(repeated) if name == DIPHONE else repeated
            return ctc_cost(outputs.logits[name], of_head)
        if modes > 1:
            raise ValueError(
                f"objective.weights: {name} has no likelihood to sum over modes; drop it"
            )
        if name == SMOOTHING:
            return label_smoothing_cost(outputs.logits["phoneme"])
        if name == CONSISTENCY:
            return consistency_cost(outputs.logits["phoneme"], _swapped(outputs.logits["phoneme"]))
        raise ValueError(
            f"objective.weights names {name!r} but the model's heads are "
            f"{sorted(outputs.logits)}; drop the weight or build the head"
        )

    costs = {}
    for name in weights:
        if name == MODE:
            costs[name] = information_cost(outputs.log_modes, labels.mask.any(axis=1), block, trial)
        elif name == FLOW:
            costs[name] = flow_cost(*outputs.flow)
        elif modes > 1:
            of_modes = jax.tree.map(lambda x: x.reshape(-1, modes), cost_of(name))
            costs[name] = marginal_cost(of_modes, outputs.log_modes, block, trial)
        else:
            costs[name] = cost_of(name)
    return costs


def _rnnt_cost(outputs: Outputs, labels: Sequence) -> Cost:
    found = outputs.transducer
    if found is None:
        raise ValueError("objective.weights names 'rnnt' but the model has no transducer")
    joint = Joint(found.kernel, found.bias)
    return transducer_cost(found.encoder, found.predictor, joint, labels)


def _swapped(x: Sequence) -> Sequence:
    """Each row's other view in its place."""
    return jax.tree.map(lambda x: x.reshape(-1, 2, *x.shape[1:])[:, ::-1].reshape(x.shape), x)
