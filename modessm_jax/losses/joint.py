"""The joint network of a transducer, over the whole lattice, without ever holding its outputs.

It has an output for every frame, label position and class, but only two of the classes matter to
the lattice. So it runs over a few frames of a few examples at a time, what it says of the blank and
the next label is kept, and the rest is computed again for the gradient. The result is exact. Kept
are arrays of `[batch, frames, positions]` and no larger.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from modessm_jax.phonemes import BLANK

# (logits [..., positions, classes], ids [..., positions]) -> log probability of (blank, next label)
Arcs = Callable[[Any, Any], tuple[Any, Any]]

CPU_BYTES = 1 << 20
ACCELERATOR_BYTES = 1 << 28


@struct.dataclass
class Joint:
    """Parameters of the joint network's output: `tanh(encoder + predictor) @ kernel + bias`."""

    kernel: Any  # float [d, classes]
    bias: Any  # float [classes]


class Chunk(NamedTuple):
    """How many examples and how many of their frames the joint network takes at a time."""

    examples: int
    frames: int


def softmax_arcs(logits: Any, ids: Any) -> tuple[Any, Any]:
    """One distribution over blank and labels (Graves 2012)."""
    norm = jax.nn.logsumexp(logits, axis=-1)
    return logits[..., BLANK] - norm, _picked(logits, ids) - norm


def factored_arcs(logits: Any, ids: Any) -> tuple[Any, Any]:
    """A decision to stay silent, and a distribution over labels for when it is not taken.

    HAT (Variani et al. 2020, "Hybrid autoregressive transducer"): the labels' distribution can be
    divided by an internal language model. The class of the blank decides.
    """
    decision = logits[..., BLANK]
    of_labels = jax.nn.logsumexp(logits[..., BLANK + 1 :], axis=-1)
    label = _picked(logits, ids) - of_labels
    return jax.nn.log_sigmoid(decision), jax.nn.log_sigmoid(-decision) + label


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
    time = encoder.shape[1]

    def group(_: None, given: Any) -> Any:
        encoder, predictor, ids, start = given

        def frames(_: None, given: Any) -> Any:
            encoder, start = given
            at = _window(start, band, predictor.shape[1])
            hidden = _hidden(encoder, _look(predictor, at))
            return None, arcs(_logits(hidden, joint), _look(ids, at))

        return None, jax.lax.scan(frames, None, (encoder, start))[1]

    given = (_chunks(encoder, chunk), *_groups((predictor, ids), chunk), _chunks(start, chunk))
    return _unchunk(jax.lax.scan(group, None, given)[1], time)


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
    given = (encoder, predictor, joint, ids, start)
    return joint_arcs(*given, band, arcs, chunk), given


def _backward(band: int, arcs: Arcs, chunk: Chunk, given: Any, weights: Any) -> Any:
    encoder, predictor, joint, ids, start = given
    exact = jnp.promote_types(encoder.dtype, jnp.float32)

    def group(of_joint: Any, given: Any) -> Any:
        encoder, predictor, ids, start, weights = given

        def frames(sums: Any, given: Any) -> Any:
            encoder, start, weights = given
            of_joint, of_predictor = sums
            at = _window(start, band, predictor.shape[1])
            hidden = _hidden(encoder, _look(predictor, at))
            _, pull = jax.vjp(lambda x: arcs(x, _look(ids, at)), _logits(hidden, joint))
            (of_logits,) = pull(weights)
            of_joint = jax.tree.map(jnp.add, of_joint, _joint_gradient(hidden, of_logits))
            slope = 1 - jnp.square(hidden.astype(exact))
            of_sum = slope * _through_kernel(of_logits, joint, hidden)
            of_predictor = of_predictor + _look_back(of_sum, at, predictor.shape[1])
            return (of_joint, of_predictor), of_sum.sum(axis=2)

        sums = (of_joint, jnp.zeros(predictor.shape, exact))
        (of_joint, of_predictor), of_encoder = jax.lax.scan(frames, sums, (encoder, start, weights))
        return of_joint, (of_encoder, of_predictor)

    d, classes = joint.kernel.shape
    nothing = (jnp.zeros((classes, d), exact), jnp.zeros(classes, exact))
    given = (
        _chunks(encoder, chunk),
        *_groups((predictor, ids), chunk),
        *_chunks((start, weights), chunk),
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


def _hidden(encoder: Any, predictor: Any) -> Any:
    """[examples, frames, d] and what they look at -> [examples, frames, band, d]."""
    return jnp.tanh(encoder[:, :, None] + predictor.astype(encoder.dtype))


def _logits(hidden: Any, joint: Joint) -> Any:
    exact = jnp.promote_types(hidden.dtype, jnp.float32)
    kernel = joint.kernel.astype(hidden.dtype)
    rows = jnp.dot(_rows(hidden), kernel, preferred_element_type=exact)
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


@jax.custom_vjp
def _picked(logits: Any, ids: Any) -> Any:
    """The logit of each id. Gathered; but the gradient is a selection, cheaper than a scatter."""
    return jnp.take_along_axis(logits, ids[..., None], axis=-1)[..., 0]


def _picked_forward(logits: Any, ids: Any) -> Any:
    return _picked(logits, ids), (logits, ids)


def _picked_backward(given: Any, weight: Any) -> tuple[Any, None]:
    logits, ids = given
    classes = jnp.arange(logits.shape[-1]).reshape((1,) * (logits.ndim - 1) + (-1,))
    return jnp.where(classes == ids[..., None], weight[..., None], 0).astype(logits.dtype), None


_picked.defvjp(_picked_forward, _picked_backward)


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
