"""The cost of each example, and the one place where costs are normalised, averaged and added up."""

from collections.abc import Collection, Mapping
from typing import Any

import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float, Int


@struct.dataclass
class Cost:
    """An objective's cost of each example, before any normalisation.

    An example that is not valid, such as one too short for its labels, has 0 nats and a gradient of
    exactly zero.
    """

    nats: Any  # float [batch]
    valid: Any  # bool [batch]


RULES = ("frames", "labels", "none", "seed_rule")


def total(
    costs: Mapping[str, Cost],
    weights: Mapping[str, float],
    frames: Int[Array, "batch"],
    labels: Int[Array, "batch"],
    normalize_by: str,
    of_trials: Collection[str] = (),
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """Weighted sum of the costs, all of sequences normalised by the same rule.

    - `frames`, `labels`: each example's nats are divided by its own number of encoder frames or
      labels (at least 1) and averaged over the valid examples.
    - `none`: the nats are averaged over the valid examples.
    - `seed_rule`: that average is divided by `max(mean frames / 2, 1)`, with the mean over the
      valid examples. The first MODE-SSM did so to bring its RNN-T loss down to CTC's scale.

    Sums and counts run over the whole (global) batch, so the number of devices does not matter.
    Where no example is valid the loss is 0.

    Args:
      costs: cost of each objective, by name.
      weights: weight of each objective, by the same names.
      frames: number of encoder frames of each example.
      labels: number of phoneme labels of each example.
      normalize_by: the rule, one of `RULES`.
      of_trials: costs that do not grow with a trial's length, averaged as by the rule `none`.

    Returns:
      The loss, and for each objective "loss/<name>" (normalised, not weighted) and "valid/<name>"
      (examples counted).

    Raises:
      ValueError: an unknown rule, or weights that do not match the costs.
    """
    if normalize_by not in RULES:
        raise ValueError(f"normalize_by is {normalize_by!r}; choose one of {', '.join(RULES)}")
    if set(costs) != set(weights):
        raise ValueError(
            f"weights are given for {sorted(weights)} but the costs are {sorted(costs)}; "
            "give each cost one weight"
        )
    loss = jnp.zeros((), jnp.float32)
    metrics: dict[str, Float[Array, ""]] = {}
    for name in sorted(costs):
        rule = "none" if name in of_trials else normalize_by
        value = _normalized_mean(costs[name], frames, labels, rule)
        loss = loss + weights[name] * value
        metrics[f"loss/{name}"] = value
        metrics[f"valid/{name}"] = costs[name].valid.sum(dtype=jnp.float32)
    return loss, metrics


def _normalized_mean(
    cost: Cost, frames: Int[Array, "batch"], labels: Int[Array, "batch"], normalize_by: str
) -> Float[Array, ""]:
    count = jnp.maximum(cost.valid.sum(dtype=jnp.float32), 1.0)

    def mean(values: Array) -> Array:
        return jnp.where(cost.valid, values, 0.0).sum() / count

    if normalize_by == "frames":
        return mean(cost.nats / jnp.maximum(frames, 1))
    if normalize_by == "labels":
        return mean(cost.nats / jnp.maximum(labels, 1))
    if normalize_by == "none":
        return mean(cost.nats)
    return mean(cost.nats) / jnp.maximum(mean(frames.astype(jnp.float32)) / 2.0, 1.0)
