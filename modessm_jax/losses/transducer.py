"""Joint network and RNN-T loss in one, per example, in nats."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from modessm_jax.losses.cost import Cost
from modessm_jax.losses.joint import (
    Arcs,
    Chunk,
    Joint,
    default_chunk,
    joint_arcs,
    softmax_arcs,
)
from modessm_jax.losses.lattice import lattice_nats
from modessm_jax.losses.rnnt import following
from modessm_jax.sequence import Sequence


def transducer_cost(
    encoder: Sequence,
    predictor: Float[Array, "batch positions d"],
    joint: Joint,
    labels: Sequence,
    *,
    arcs: Arcs = softmax_arcs,
    fastemit: float = 0.0,
    chunk: Chunk | None = None,
) -> Cost:
    """RNN-T cost (Graves 2012) of a joint network `tanh(encoder + predictor) @ kernel + bias`.

    Equal to `rnnt_cost` of the joint's logits, and several times as fast and lean on a CPU. Matrix
    products run in the encoder's type; sums, costs and the lattice in float32 or better.

    Args:
      encoder: `[batch, frames, d]`, projected to the joint's width.
      predictor: one state for each number of labels said so far, `positions` = labels + 1.
      joint: the output layer.
      labels: int `[batch, labels]`; real labels come first and none of them is the blank.
      arcs: how logits become probabilities, `softmax_arcs` or `factored_arcs`.
      fastemit: weight of FastEmit (Yu et al. 2021); changes the gradient, not the cost.
      chunk: what to compute at a time; by default what `default_chunk` says. Never changes the
        result.

    Returns:
      One cost per example. An example without frames is not valid; every other can be aligned.

    Raises:
      ValueError: the predictor does not have one position more than there are labels, or the
        batch is not a multiple of the chunk's examples.
    """
    batch, time, d = encoder.values.shape
    positions = predictor.shape[1]
    ids = following(labels, positions)
    chunk = chunk or default_chunk(batch, time, positions, d)
    if batch % chunk.examples:
        raise ValueError(
            f"the batch of {batch} does not divide into chunks of {chunk.examples} examples"
        )
    said = jnp.arange(positions)[None, :, None] <= labels.lengths[:, None, None]
    predictor = jnp.where(said, predictor, 0)
    log_probabilities: Any = joint_arcs(
        encoder.masked().values, predictor, joint, ids, None, positions, arcs, chunk
    )
    nats: Any = lattice_nats(*log_probabilities, encoder.lengths, labels.lengths, fastemit)
    valid = encoder.lengths > 0
    return Cost(nats=jnp.where(valid, nats, 0.0), valid=valid)
