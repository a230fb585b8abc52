"""What a transducer search needs of a model, as pure functions, and the greedy search."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from modessm_jax.losses.transducer import Joint, joint_hidden, joint_logits
from modessm_jax.phonemes import BLANK
from modessm_jax.sequence import Sequence


class Transducer(NamedTuple):
    """A predictor and a joint network.

    - `start(batch) -> (state, output)`: before the first label.
    - `advance(state, labels) -> (state, output)`: after one more label of each row. A search that
      advances only some rows gives the others the blank and keeps their old state.
    - `joint(encoder, predictor) -> log_probabilities`: `[..., d]` and `[..., d]` to
      `[..., classes]`, float32 or better.

    `labels` is int32 `[batch]`, `output` is `[batch, d]`, and `state` is any tree of arrays with a
    leading axis of `batch`.
    """

    start: Callable[[int], tuple[Any, Any]]
    advance: Callable[[Any, Any], tuple[Any, Any]]
    joint: Callable[[Any, Any], Any]


def make_transducer(
    initial_state: Callable[[int], Any], step: Callable[[Any, Any], tuple[Any, Any]], joint: Joint
) -> Transducer:
    """A transducer of a predictor's two functions and the parameters of a joint network."""

    def start(batch: int) -> tuple[Any, Any]:
        return step(initial_state(batch), jnp.full((batch,), BLANK, jnp.int32))

    return Transducer(start, step, partial(log_probabilities, joint))


def log_probabilities(
    joint: Joint, encoder: Float[Array, "... d"], predictor: Float[Array, "... d"]
) -> Float[Array, "... classes"]:
    """Log probabilities of all classes, as in the loss; float32 or better."""
    logits = joint_logits(joint_hidden(encoder, predictor), joint)
    return logits - jax.nn.logsumexp(logits, axis=-1, keepdims=True)


def select(chosen: Bool[Array, "rows"], new: Any, old: Any) -> Any:
    """Of two trees of arrays `[rows, ...]`, the new one's rows where chosen."""

    def of_leaf(new: Any, old: Any) -> Any:
        return jnp.where(chosen.reshape((-1,) + (1,) * (new.ndim - 1)), new, old)

    return jax.tree.map(of_leaf, new, old)


def greedy(transducer: Transducer, encoder: Sequence, *, max_symbols: int = 4) -> Sequence:
    """Labels of one walk through the lattice that takes the likeliest class in every cell.

    Graves 2012. A label advances the predictor and stays in the frame; a blank moves on to the next
    frame and leaves the predictor as it is.

    Args:
      transducer: the predictor and joint network. NaN among its log probabilities is decoded as
        the blank, so check them beforehand.
      encoder: `[batch, frames, d]`.
      max_symbols: after so many labels in one frame the walk moves on as if by a blank.

    Returns:
      int32 ids `[batch, frames * max_symbols]`, those of an example first, 0 in the padding.

    Raises:
      ValueError: `max_symbols` is below 1.
    """
    batch, time = encoder.mask.shape
    _, found = greedy_step(transducer, transducer.start(batch), encoder, max_symbols=max_symbols)
    ids = found.ids.reshape(batch, time * max_symbols)
    emitted = ids != BLANK
    order = jnp.argsort(~emitted, axis=1, stable=True)
    ids = jnp.take_along_axis(ids, order, axis=1)
    return Sequence.from_lengths(ids, emitted.sum(axis=1, dtype=jnp.int32))


class Emissions(NamedTuple):
    """The labels that each frame emits, in order, and blanks after them."""

    ids: Any  # int32 [batch, time, max_symbols]
    scores: Any  # [batch, time, max_symbols], log-probability of each label; 0 of the blanks


def greedy_step(
    transducer: Transducer, state: tuple[Any, Any], frames: Sequence, *, max_symbols: int = 4
) -> tuple[tuple[Any, Any], Emissions]:
    """The next state and the labels of the next frames, any number of them; else as `greedy`.

    The state of fresh streams is `transducer.start(batch)`.
    """
    if max_symbols < 1:
        raise ValueError(f"max_symbols = {max_symbols}: a frame must be allowed one label or more")
    batch = frames.mask.shape[0]

    def of_frame(state: Any, given: Any) -> tuple[Any, Emissions]:
        frame, real = given

        def likeliest(state: Any, active: Any) -> tuple[Any, Any]:
            scores = transducer.joint(frame, state[1])
            best = jnp.where(active, jnp.argmax(scores, axis=-1), BLANK).astype(jnp.int32)
            return best, jnp.where(best == BLANK, 0, jnp.max(scores, axis=-1))

        def goes_on(carry: Any) -> Any:
            count, _, (best, _), _ = carry
            return (count < max_symbols) & (best != BLANK).any()

        def emit(carry: Any) -> Any:
            count, state, (best, score), (ids, scores) = carry
            emitted = best != BLANK
            state = select(emitted, transducer.advance(state[0], best), state)
            found = Emissions(ids.at[count].set(best), scores.at[count].set(score))
            return count + 1, state, likeliest(state, emitted), found

        begun = likeliest(state, real)
        blanks = jnp.full((max_symbols, batch), BLANK, jnp.int32)
        nothing = Emissions(blanks, jnp.zeros(blanks.shape, begun[1].dtype))
        # A loop and not a scan: most frames emit no label, and the predictor need not run.
        first = (jnp.zeros((), jnp.int32), state, begun, nothing)
        _, state, _, found = jax.lax.while_loop(goes_on, emit, first)
        return state, found

    by_frame = (frames.masked().values.swapaxes(0, 1), frames.mask.T)
    state, found = jax.lax.scan(of_frame, state, by_frame)
    return state, Emissions(*(part.transpose(2, 0, 1) for part in found))
