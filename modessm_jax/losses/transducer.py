"""Joint network and RNN-T loss in one, without ever holding the network's outputs.

The joint network has an output for every frame, label position and class, but the loss needs only
two of the classes: the blank and the next label. So the network runs over a few frames of a few
examples at a time. The log probabilities of these two classes are kept, and the rest is computed
again for the gradient. The result is exact. Arrays of `[batch, frames, positions]` are the largest
that are kept.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float

from modessm_jax.losses.cost import Cost
from modessm_jax.losses.rnnt import lattice_nats, next_labels
from modessm_jax.phonemes import BLANK
from modessm_jax.sequence import Sequence

CPU_BYTES = 1 << 20
ACCELERATOR_BYTES = 1 << 28
TILE = 16


@struct.dataclass
class Joint:
    """Parameters of the joint network's output: `tanh(encoder + predictor) @ kernel + bias`."""

    kernel: Any  # float [d, classes]
    bias: Any  # float [classes]


class Chunk(NamedTuple):
    """How many examples and how many of their frames the joint network takes at a time."""

    examples: int
    frames: int


def transducer_cost(
    encoder: Sequence,
    predictor: Float[Array, "batch positions d"],
    joint: Joint,
    labels: Sequence,
    *,
    chunk: Chunk | None = None,
) -> Cost:
    """RNN-T cost (Graves 2012) of a joint network `tanh(encoder + predictor) @ kernel + bias`.

    Equal to `rnnt_cost` of the joint's logits, and several times as fast and lean on a CPU. Matrix
    products run in the encoder's type; sums, costs and the lattice in float32 or better.

    Args:
      encoder: `[batch, frames, d]`, projected to the joint's width.
      predictor: its output after none, one, ... and all labels; `positions` = labels + 1.
      joint: the output layer.
      labels: int `[batch, labels]`; real labels come first and none of them is the blank.
      chunk: what to compute at a time; by default that of `default_chunk`. It does not change the
        result.

    Returns:
      One cost per example, in nats. An example without frames is not valid; every other can be
      aligned.

    Raises:
      ValueError: the predictor does not have one position more than there are labels, or the
        batch is not a multiple of the chunk's examples.
    """
    batch, time, d = encoder.values.shape
    positions = predictor.shape[1]
    ids = next_labels(labels, positions)
    chunk = chunk or default_chunk(batch, time, positions, d)
    if batch % chunk.examples:
        raise ValueError(
            f"the batch of {batch} does not divide into chunks of {chunk.examples} examples"
        )
    real = jnp.arange(positions)[None, :, None] <= labels.lengths[:, None, None]
    predictor = jnp.where(real, predictor, 0)
    both: Any = _log_probabilities(encoder.masked().values, predictor, joint, ids, chunk)
    nats: Any = lattice_nats(*both, encoder.lengths, labels.lengths)
    valid = encoder.lengths > 0
    return Cost(nats=jnp.where(valid, nats, 0.0), valid=valid)


def default_chunk(batch: int, time: int, positions: int, d: int) -> Chunk:
    """As much as keeps a chunk's hidden activations within a budget of memory.

    On a CPU the budget is a second-level cache, on an accelerator what makes large products. Whole
    batches come before more frames: that spares sums over frames, and keeps every device of a mesh
    busy.
    """
    budget = CPU_BYTES if jax.default_backend() == "cpu" else ACCELERATOR_BYTES
    rows = max(1, budget // (4 * positions * d))
    examples = max(n for n in range(1, batch + 1) if batch % n == 0 and n <= rows)
    return Chunk(examples, min(time, rows // examples))


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def _log_probabilities(encoder: Any, predictor: Any, joint: Joint, ids: Any, chunk: Chunk) -> Any:
    """Log probabilities of the blank and of the next label, each [batch, frames, positions].

    Args:
      encoder: [batch, frames, d], finite also in padding.
      predictor: [batch, positions, d], likewise.
      joint: the output layer.
      ids: the label that follows each position, [batch, positions].
      chunk: what to compute at a time.
    """
    return _forward(encoder, predictor, joint, ids, chunk)[0]


def _forward(encoder: Any, predictor: Any, joint: Joint, ids: Any, chunk: Chunk) -> Any:
    def group(_: None, given: Any) -> Any:
        encoder, predictor, ids = given

        def frames(_: None, encoder: Any) -> Any:
            hidden = joint_hidden(encoder[:, :, None], predictor[:, None])
            logits = joint_logits(hidden, joint)
            norm = jax.nn.logsumexp(logits, axis=-1)
            label = jnp.take_along_axis(logits, ids[:, None, :, None], axis=-1)[..., 0]
            return None, ((logits[..., BLANK] - norm, label - norm), norm)

        return None, jax.lax.scan(frames, None, encoder)[1]

    given = (_chunks(encoder, chunk), *_groups((predictor, ids), chunk))
    both, norm = jax.lax.scan(group, None, given)[1]
    return _unchunk(both, encoder.shape[1]), (encoder, predictor, joint, ids, norm)


def _backward(chunk: Chunk, kept: Any, weights: Any) -> Any:
    encoder, predictor, joint, ids, norm = kept
    exact = jnp.promote_types(encoder.dtype, jnp.float32)

    def group(of_joint: Any, given: Any) -> Any:
        encoder, predictor, ids, norm, weights = given

        def frames(sums: Any, given: Any) -> Any:
            encoder, norm, weights = given
            of_joint, of_predictor = sums
            hidden = joint_hidden(encoder[:, :, None], predictor[:, None])
            of_logits = _logits_gradient(joint_logits(hidden, joint), ids, norm, *weights)
            of_joint = jax.tree.map(jnp.add, of_joint, _joint_gradient(hidden, of_logits))
            slope = 1 - jnp.square(hidden.astype(exact))
            of_sum = slope * _through_kernel(of_logits, joint, hidden)
            return (of_joint, of_predictor + of_sum.sum(axis=1)), of_sum.sum(axis=2)

        sums = (of_joint, jnp.zeros(predictor.shape, exact))
        (of_joint, of_predictor), of_encoder = jax.lax.scan(frames, sums, (encoder, norm, weights))
        return of_joint, (of_encoder, of_predictor)

    d, classes = joint.kernel.shape
    nothing = (jnp.zeros((classes, d), exact), jnp.zeros(classes, exact))
    given = (
        _chunks(encoder, chunk),
        *_groups((predictor, ids), chunk),
        norm,
        _chunks(weights, chunk),
    )
    (of_kernel, of_bias), (of_encoder, of_predictor) = jax.lax.scan(group, nothing, given)
    return (
        _unchunk(of_encoder, encoder.shape[1]).astype(encoder.dtype),
        _ungroup(of_predictor).astype(predictor.dtype),
        Joint(of_kernel.T.astype(joint.kernel.dtype), of_bias.astype(joint.bias.dtype)),
        None,
    )


_log_probabilities.defvjp(_forward, _backward)


def joint_hidden(encoder: Float[Array, "... d"], predictor: Float[Array, "... d"]) -> Any:
    """The hidden activations of encoder frames and predictor outputs, broadcast to [..., d]."""
    return jnp.tanh(encoder + predictor.astype(encoder.dtype))


def joint_logits(hidden: Float[Array, "... d"], joint: Joint) -> Float[Array, "... classes"]:
    """The output layer: logits of hidden activations, in float32 or better."""
    exact = jnp.promote_types(hidden.dtype, jnp.float32)
    classes = joint.kernel.shape[1]
    # Products go faster where the columns fill whole vector registers or tiles.
    kernel = jnp.pad(joint.kernel.astype(hidden.dtype), ((0, 0), (0, -classes % TILE)))
    rows = jnp.dot(_rows(hidden), kernel, preferred_element_type=exact)[:, :classes]
    rows = rows + joint.bias.astype(exact)[None, :]
    return rows.reshape(*hidden.shape[:-1], -1)


def _logits_gradient(logits: Any, ids: Any, norm: Any, of_blank: Any, of_label: Any) -> Any:
    """Of the logits, given those of the log probabilities of blank and next label."""
    classes = jnp.arange(logits.shape[-1])[None, None, None, :]
    gradient = jnp.where(classes == ids[:, None, :, None], of_label[..., None], 0)
    gradient = gradient - (of_blank + of_label)[..., None] * jnp.exp(logits - norm[..., None])
    return gradient + jnp.where(classes == BLANK, of_blank[..., None], 0)


def _joint_gradient(hidden: Any, of_logits: Any) -> tuple[Any, Any]:
    """Of the kernel, [classes, d], and of the bias."""
    rows = _rows(of_logits)
    # Transposed: XLA on a CPU multiplies [classes, rows] [rows, d] three times as fast as the
    # other way round.
    of_kernel = jnp.dot(
        rows.astype(hidden.dtype).T, _rows(hidden), preferred_element_type=of_logits.dtype
    )
    return of_kernel, rows.sum(axis=0)


def _through_kernel(of_logits: Any, joint: Joint, hidden: Any) -> Any:
    kernel = joint.kernel.astype(hidden.dtype)
    rows = _rows(of_logits).astype(hidden.dtype)
    return jnp.dot(rows, kernel.T, preferred_element_type=of_logits.dtype).reshape(hidden.shape)


def _rows(x: Any) -> Any:
    return x.reshape(-1, x.shape[-1])


def _groups(tree: Any, chunk: Chunk) -> Any:
    """[batch, ...] -> [groups, examples, ...] in every leaf.

    The examples of a group are dealt out over the batch, so that each device of a mesh holds some
    of every group.
    """
    return jax.tree.map(lambda x: x.reshape(chunk.examples, -1, *x.shape[1:]).swapaxes(0, 1), tree)


def _ungroup(tree: Any) -> Any:
    """Undoes `_groups`."""
    return jax.tree.map(lambda x: x.swapaxes(0, 1).reshape(-1, *x.shape[2:]), tree)


def _chunks(tree: Any, chunk: Chunk) -> Any:
    """[batch, time, ...] -> [groups, chunks, examples, frames, ...], padded in time."""

    def split(x: Any) -> Any:
        padding = ((0, 0), (0, -x.shape[1] % chunk.frames)) + ((0, 0),) * (x.ndim - 2)
        x = _groups(jnp.pad(x, padding), chunk)
        return x.reshape(*x.shape[:2], -1, chunk.frames, *x.shape[3:]).swapaxes(1, 2)

    return jax.tree.map(split, tree)


def _unchunk(tree: Any, time: int) -> Any:
    """Undoes `_chunks`."""

    def join(x: Any) -> Any:
        x = x.swapaxes(1, 2)
        return _ungroup(x.reshape(*x.shape[:2], -1, *x.shape[4:]))[:, :time]

    return jax.tree.map(join, tree)
