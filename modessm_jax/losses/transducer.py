"""The joint network of a transducer, over the whole lattice, without ever holding its outputs.

It has an output for every frame, label position and class, but only two of the classes matter to
the lattice. So it runs over a few frames of a few examples at a time, what it says of the blank and
the next label is kept, and the rest is computed again for the gradient. The result is exact. Kept
are arrays of `[batch, frames, positions]` and no larger.

Joint network and RNN-T loss in one, per example, in nats.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float

from modessm_jax.losses.cost import Cost
from modessm_jax.losses.rnnt import following, lattice_nats
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


class Arcs(NamedTuple):
    """How logits become the log probabilities of the blank and of the next label.

    `forward(logits, ids)`, of `[..., positions, classes]` and `[..., positions]`, gives
    `((blank, label), norm)`; `backward(logits, ids, norm, weights)` the gradient of the logits for
    weights of blank and label. With the norm it need not sum over the classes again.
    """

    forward: Callable[[Any, Any], tuple[tuple[Any, Any], Any]]
    backward: Callable[[Any, Any, Any, tuple[Any, Any]], Any]


def _softmax(logits: Any, ids: Any) -> tuple[tuple[Any, Any], Any]:
    norm = jax.nn.logsumexp(logits, axis=-1)
    return (logits[..., BLANK] - norm, _picked(logits, ids) - norm), norm


def _softmax_gradient(logits: Any, ids: Any, norm: Any, weights: tuple[Any, Any]) -> Any:
    of_blank, of_label = weights
    through = (of_blank + of_label)[..., None]
    gradient = _selected(logits, ids, of_label) - through * jnp.exp(logits - norm[..., None])
    return gradient + jnp.where(_classes(logits) == BLANK, of_blank[..., None], 0)


# One distribution over blank and labels (Graves 2012).
softmax_arcs = Arcs(_softmax, _softmax_gradient)


def _factored(logits: Any, ids: Any) -> tuple[tuple[Any, Any], Any]:
    decision = logits[..., BLANK]
    norm = jax.nn.logsumexp(logits[..., BLANK + 1 :], axis=-1)
    label = _picked(logits, ids) - norm
    return (jax.nn.log_sigmoid(decision), jax.nn.log_sigmoid(-decision) + label), norm


def _factored_gradient(logits: Any, ids: Any, norm: Any, weights: tuple[Any, Any]) -> Any:
    of_blank, of_label = weights
    decision = logits[..., BLANK]
    slope = of_blank * jax.nn.sigmoid(-decision) - of_label * jax.nn.sigmoid(decision)
    gradient = _selected(logits, ids, of_label)
    gradient = gradient - of_label[..., None] * jnp.exp(logits - norm[..., None])
    return jnp.where(_classes(logits) == BLANK, slope[..., None], gradient)


# A decision to stay silent, and a distribution over labels for when it is not taken: HAT (Variani
# et al. 2020, "Hybrid autoregressive transducer"), whose labels' distribution can be divided by an
# internal language model. The class of the blank decides.
factored_arcs = Arcs(_factored, _factored_gradient)


def default_chunk(batch: int, time: int, positions: int, d: int) -> Chunk:
    """As much as lets a chunk's hidden activations stay within a budget of memory.

    On a CPU the budget is a second-level cache, on an accelerator what makes large products. Whole
    batches come before more frames: that spares sums over frames, and keeps every device of a mesh
    busy.
    """
    budget = CPU_BYTES if jax.default_backend() == "cpu" else ACCELERATOR_BYTES
    rows = max(1, budget // (4 * positions * d))
    examples = max(n for n in range(1, batch + 1) if batch % n == 0 and n <= rows)
    return Chunk(examples, min(time, rows // examples))


@functools.partial(jax.custom_vjp, nondiff_argnums=(5, 6, 7))
def joint_arcs(
    encoder: Any,
    predictor: Any,
    joint: Joint,
    ids: Any,
    start: Any,
    band: int,
    arcs: Arcs,
    chunk: Chunk,
) -> Any:
    """Log probabilities of the blank and of the next label, each [batch, frames, band].

    Args:
      encoder: [batch, frames, d], finite also in padding.
      predictor: [batch, positions, d], likewise.
      joint: the output layer.
      ids: the label that follows each position, [batch, positions].
      start: the first position each frame looks at, [batch, frames]; None for all positions.
      band: how many positions a frame looks at; those past the last repeat it.
      arcs: how logits become probabilities.
      chunk: what to compute at a time.
    """
    return _forward(encoder, predictor, joint, ids, start, band, arcs, chunk)[0]


def _forward(
    encoder: Any,
    predictor: Any,
    joint: Joint,
    ids: Any,
    start: Any,
    band: int,
    arcs: Arcs,
    chunk: Chunk,
) -> Any:
    def group(_: None, given: Any) -> Any:
        encoder, predictor, ids, start = given

        def frames(_: None, given: Any) -> Any:
            encoder, start = given
            at = _window(start, band, predictor.shape[1])
            hidden = joint_hidden(encoder[:, :, None], _look(predictor, at))
            return None, arcs.forward(joint_logits(hidden, joint), _look(ids, at))

        return None, jax.lax.scan(frames, None, (encoder, start))[1]

    given = (_chunks(encoder, chunk), *_groups((predictor, ids), chunk), _chunks(start, chunk))
    log_probabilities, norm = jax.lax.scan(group, None, given)[1]
    kept = (encoder, predictor, joint, ids, start, norm)
    return _unchunk(log_probabilities, encoder.shape[1]), kept


def _backward(band: int, arcs: Arcs, chunk: Chunk, kept: Any, weights: Any) -> Any:
    encoder, predictor, joint, ids, start, norm = kept
    exact = jnp.promote_types(encoder.dtype, jnp.float32)

    def group(of_joint: Any, given: Any) -> Any:
        encoder, predictor, ids, start, norm, weights = given

        def frames(sums: Any, given: Any) -> Any:
            encoder, start, norm, weights = given
            of_joint, of_predictor = sums
            at = _window(start, band, predictor.shape[1])
            hidden = joint_hidden(encoder[:, :, None], _look(predictor, at))
            logits = joint_logits(hidden, joint)
            of_logits = arcs.backward(logits, _look(ids, at), norm, weights)
            of_joint = jax.tree.map(jnp.add, of_joint, _joint_gradient(hidden, of_logits))
            slope = 1 - jnp.square(hidden.astype(exact))
            of_sum = slope * _through_kernel(of_logits, joint, hidden)
            of_predictor = of_predictor + _look_back(of_sum, at, predictor.shape[1])
            return (of_joint, of_predictor), of_sum.sum(axis=2)

        sums = (of_joint, jnp.zeros(predictor.shape, exact))
        given = (encoder, start, norm, weights)
        (of_joint, of_predictor), of_encoder = jax.lax.scan(frames, sums, given)
        return of_joint, (of_encoder, of_predictor)

    d, classes = joint.kernel.shape
    nothing = (jnp.zeros((classes, d), exact), jnp.zeros(classes, exact))
    given = (
        _chunks(encoder, chunk),
        *_groups((predictor, ids), chunk),
        _chunks(start, chunk),
        norm,
        _chunks(weights, chunk),
    )
    (of_kernel, of_bias), (of_encoder, of_predictor) = jax.lax.scan(group, nothing, given)
    return (
        _unchunk(of_encoder, encoder.shape[1]).astype(encoder.dtype),
        _ungroup(of_predictor).astype(predictor.dtype),
        Joint(of_kernel.T.astype(joint.kernel.dtype), of_bias.astype(joint.bias.dtype)),
        None,
        None,
    )


joint_arcs.defvjp(_forward, _backward)


def _window(start: Any, band: int, positions: int) -> Any:
    """The positions each frame looks at, [examples, frames, band]; None for all of them."""
    if start is None:
        return None
    return jnp.minimum(start[..., None] + jnp.arange(band)[None, None, :], positions - 1)


def _look(x: Any, at: Any) -> Any:
    """[examples, positions, ...] -> [examples, frames (1 when all look alike), band, ...]."""
    return x[:, None] if at is None else jax.vmap(lambda x, at: x[at])(x, at)


def _look_back(gradient: Any, at: Any, positions: int) -> Any:
    """[examples, frames, band, d] -> [examples, positions, d]: the transpose of `_look`."""
    if at is None:
        return gradient.sum(axis=1)
    # A product with ones and zeros: the same sum every time, which a scatter is not on a GPU.
    chosen = jax.nn.one_hot(at, positions, dtype=gradient.dtype)
    return jnp.einsum("efbp,efbd->epd", chosen, gradient, precision=jax.lax.Precision.HIGHEST)


def joint_hidden(encoder: Any, predictor: Any) -> Any:
    """The hidden activations of encoder frames and predictor outputs, [..., d] each."""
    return jnp.tanh(encoder + predictor.astype(encoder.dtype))


def joint_logits(hidden: Any, joint: Joint) -> Any:
    """The output layer: hidden activations [..., d] to logits [..., classes], float32 or better."""
    exact = jnp.promote_types(hidden.dtype, jnp.float32)
    classes = joint.kernel.shape[1]
    # Products go faster where the columns fill whole vector registers or tiles.
    kernel = jnp.pad(joint.kernel.astype(hidden.dtype), ((0, 0), (0, -classes % TILE)))
    rows = jnp.dot(_rows(hidden), kernel, preferred_element_type=exact)[:, :classes]
    rows = rows + joint.bias.astype(exact)[None, :]
    return rows.reshape(*hidden.shape[:-1], -1)


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


def _picked(logits: Any, ids: Any) -> Any:
    """The logit of each id."""
    return jnp.take_along_axis(logits, ids[..., None], axis=-1)[..., 0]


def _selected(logits: Any, ids: Any, weight: Any) -> Any:
    """The weight in each id's class, 0 in the others: the transpose of `_picked`."""
    return jnp.where(_classes(logits) == ids[..., None], weight[..., None], 0)


def _classes(logits: Any) -> Any:
    return jnp.arange(logits.shape[-1]).reshape((1,) * (logits.ndim - 1) + (-1,))


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
