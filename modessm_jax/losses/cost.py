"""What every objective returns.

The one place where sequence costs are normalised, averaged and added up.
"""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float, Int


@struct.dataclass
class Cost:
    """What an objective charges each example, before any normalisation.

    An example that is not valid has 0 nats and a gradient of exactly zero.
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
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """Weighted sum of the costs, every one of them normalised by the same rule.

    With `frames` or `labels` each example's nats are divided by its own encoder frames or labels
    (at least 1) and averaged over the valid examples; `none` averages the nats. `seed_rule` divides
    that average by `max(mean frames / 2, 1)`, as MODE-SSM did to bring its RNN-T loss down to CTC's
    scale; both means are over the valid examples. Sums and counts run over the whole (global)
    batch, so the number of devices does not matter. Where no example is valid the loss is 0.

    Args:
      costs: cost of each objective, by name.
      weights: weight of each objective; the names must be those of `costs`.
      frames: encoder frames of each example.
      labels: phoneme labels of each example.
      normalize_by: the rule, one of `RULES`.

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
        value = _normalized_mean(costs[name], frames, labels, normalize_by)
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
