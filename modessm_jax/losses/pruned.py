"""RNN-T over a narrow band of the lattice: an approximation for long label sequences.

Kuang et al. 2022, "Pruned RNN-T for fast, memory-efficient ASR training". A simple joint network,
the sum of two linear maps, goes over the whole lattice without ever forming its logits: summing
`exp(a + b)` over classes is a matrix product. Where its probability flows decides, for each frame,
which few label positions the real joint network looks at.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float, Int

from modessm_jax.losses.cost import Cost
from modessm_jax.losses.logspace import ZERO
from modessm_jax.losses.rnnt import following, lattice_flows, lattice_nats
from modessm_jax.losses.transducer import (
    Arcs,
    Joint,
    default_chunk,
    joint_arcs,
    softmax_arcs,
)
from modessm_jax.phonemes import BLANK
from modessm_jax.sequence import Sequence


@struct.dataclass
class Simple:
    """Parameters of the simple joint network, whose logits are the sum of two linear maps."""

    encoder: Any  # float [d, classes]
    predictor: Any  # float [d, classes]


def pruned_cost(
    encoder: Sequence,
    predictor: Float[Array, "batch positions d"],
    joint: Joint,
    simple: Simple,
    labels: Sequence,
    *,
    band: int = 5,
    arcs: Arcs = softmax_arcs,
) -> tuple[Cost, Cost]:
    """The RNN-T cost within a band, and that of the simple joint network which chose the band.

    Train on both: the band is only as good as the simple network. What lies outside the band is
    taken to be impossible, so the first cost is at least the exact one, and equal to it when the
    band covers all positions. No gradient passes through the choice of the band.

    Args:
      encoder: as for `transducer_cost`.
      predictor: as for `transducer_cost`.
      joint: output layer of the real joint network.
      simple: the two linear maps of the simple one.
      labels: as for `transducer_cost`.
      band: label positions a frame looks at, at least 2.
      arcs: how the real network's logits become probabilities.

    Returns:
      Both costs per example. An example without frames is not valid, nor in the first one with
      more labels than a band rising by `band - 1` a frame can reach.

    Raises:
      ValueError: a band narrower than 2, or positions that do not fit the labels.
    """
    if band < 2:
        raise ValueError(f"band is {band}; a band must hold at least 2 positions to rise at all")
    batch, time, d = encoder.values.shape
    positions = predictor.shape[1]
    band = min(band, positions)
    ids = following(labels, positions)
    frames, counts = encoder.lengths, labels.lengths
    said = jnp.arange(positions)[None, :, None] <= counts[:, None, None]
    encoded, predictor = encoder.masked().values, jnp.where(said, predictor, 0)
    found: Any = lattice_flows(*_simple_arcs(encoded, predictor, simple, ids), frames, counts)
    nats, by_blank, by_label = found
    valid = frames > 0
    of_simple = Cost(nats=jnp.where(valid, nats, 0.0), valid=valid)

    start = band_start(by_blank, by_label, frames, counts, band)
    chunk = default_chunk(batch, time, band, d)
    within: Any = joint_arcs(encoded, predictor, joint, ids, start, band, arcs, chunk)
    blank, label = (_spread(x, start, positions) for x in within)
    reachable = valid & ((band == positions) | (counts <= (band - 1) * frames))
    nats: Any = lattice_nats(blank, label, frames, counts)
    return Cost(nats=jnp.where(reachable, nats, 0.0), valid=reachable), of_simple


def band_start(
    by_blank: Float[Array, "batch frames positions"],
    by_label: Float[Array, "batch frames positions"],
    frames: Int[Array, "batch"],
    counts: Int[Array, "batch"],
    band: int,
) -> Int[Array, "batch frames"]:
    """The first of the `band` positions each frame should look at.

    Each frame's window is the one most likely to hold all of the walk through that frame: it leaves
    by a blank inside the window, and has not come into it by a label from below. Windows then start
    at the first position and end at the last, never fall, and overlap, so that a walk fits through.

    Args:
      by_blank: probability of leaving each cell by its blank.
      by_label: probability of leaving it by its label.
      frames: real frames of each example.
      counts: its labels.
      band: positions in a window.
    """
    positions = by_blank.shape[2]
    windows = positions - band + 1
    leaving = sum(by_blank[..., k : k + windows] for k in range(band))
    entering = jnp.pad(by_label, ((0, 0), (0, 0), (1, 0)))[..., :windows]
    start = jnp.argmax(leaving - entering, axis=-1)
    time = jnp.arange(by_blank.shape[1])[None, :]
    end = jnp.maximum(counts - band + 1, 0)[:, None]
    start = jnp.where(time < frames[:, None] - 1, start, end)
    start = jax.lax.cummin(start, axis=1, reverse=True)
    highest = (band - 1) * time  # what a band that starts at 0 can have risen to
    room = jax.lax.cummin(highest - start, axis=1, reverse=True)
    return highest - jnp.maximum(room, 0)


def _simple_arcs(encoder: Any, predictor: Any, simple: Simple, ids: Any) -> tuple[Any, Any]:
    """Log probabilities of blank and next label of the simple network, [batch, time, positions]."""
    exact = jnp.promote_types(encoder.dtype, jnp.float32)
    by_encoder = jnp.dot(encoder, simple.encoder, preferred_element_type=exact)
    by_predictor = jnp.dot(predictor, simple.predictor, preferred_element_type=exact)
    top = jax.lax.stop_gradient(by_encoder.max(axis=-1, keepdims=True))
    top_predictor = jax.lax.stop_gradient(by_predictor.max(axis=-1, keepdims=True))
    product = jnp.einsum(
        "btv,bpv->btp",
        jnp.exp(by_encoder - top),
        jnp.exp(by_predictor - top_predictor),
        precision=jax.lax.Precision.HIGHEST,
    )
    # Where no class is likely to both, the product may vanish; it is then as small as can be.
    product = jnp.maximum(product, jnp.finfo(exact).tiny)
    norm = jnp.log(product) + top + top_predictor.swapaxes(1, 2)
    blank = by_encoder[..., BLANK, None] + by_predictor[:, None, :, BLANK]
    of_label = jax.nn.one_hot(ids, by_encoder.shape[-1], dtype=exact)
    label = jnp.einsum("btv,bpv->btp", by_encoder, of_label, precision=jax.lax.Precision.HIGHEST)
    label = label + (by_predictor * of_label).sum(axis=-1)[:, None]
    return blank - norm, label - norm


def _spread(within: Any, start: Any, positions: int) -> Any:
    """[batch, frames, band] -> [batch, frames, positions], impossible outside the band."""
    place = jnp.arange(positions)[None, None, :] - start[..., None]
    inside = (place >= 0) & (place < within.shape[2])
    place = jnp.clip(place, 0, within.shape[2] - 1)
    return jnp.where(inside, jnp.take_along_axis(within, place, axis=2), ZERO)
