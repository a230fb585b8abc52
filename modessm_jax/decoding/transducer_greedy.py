"""Greedy transducer decoding, of whole trials or in real time."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from modessm_jax.decoding.transducer import Transducer, select
from modessm_jax.phonemes import BLANK
from modessm_jax.sequence import Sequence


class GreedyState(NamedTuple):
    """What passes from one frame to the next: all that was said, as the predictor sees it."""

    predictor: Any  # a tree of arrays [batch, ...]
    output: Any  # [batch, d]


def greedy(transducer: Transducer, encoder: Sequence, *, max_symbols: int = 4) -> Sequence:
    """Labels of one walk through the lattice that takes the likeliest arc of every cell.

    Graves 2012. A label advances the predictor and stays in the frame; a blank moves on to the next
    frame and leaves the predictor as it is.

    Args:
      transducer: the predictor and joint network. Its log probabilities must be numbers: of NaN
        nothing is said, which labels alone cannot tell from silence.
      encoder: `[batch, frames, d]`; padding says nothing.
      max_symbols: after so many labels in one frame the walk moves on without asking for a blank.

    Returns:
      int32 ids `[batch, frames * max_symbols]`, those of an example first, 0 in the padding.

    Raises:
      ValueError: `max_symbols` is below 1.
    """
    state = initial_greedy(transducer, encoder.mask.shape[0])
    return greedy_step(transducer, state, encoder, max_symbols=max_symbols)[1]


def initial_greedy(transducer: Transducer, batch: int) -> GreedyState:
    """The state before the first frame of `batch` streams."""
    return GreedyState(*transducer.start(batch))


def greedy_step(
    transducer: Transducer, state: GreedyState, frames: Sequence, *, max_symbols: int = 4
) -> tuple[GreedyState, Sequence]:
    """The labels said in the next frames, any number of them; otherwise as `greedy`."""
    if max_symbols < 1:
        raise ValueError(f"max_symbols = {max_symbols}: a frame must be allowed one label or more")
    batch, time = frames.mask.shape

    def of_frame(state: GreedyState, given: Any) -> tuple[GreedyState, Any]:
        frame, real = given

        def likeliest(state: GreedyState, speaking: Any) -> Any:
            best = jnp.argmax(transducer.joint(frame, state.output), axis=-1)
            return jnp.where(speaking, best, BLANK).astype(jnp.int32)

        def goes_on(carry: Any) -> Any:
            count, _, best, _ = carry
            return (count < max_symbols) & (best != BLANK).any()

        def say(carry: Any) -> Any:
            count, state, best, ids = carry
            said = best != BLANK
            advanced = GreedyState(*transducer.advance(state.predictor, best))
            state = select(said, advanced, state)
            return count + 1, state, likeliest(state, said), ids.at[count].set(best)

        silence = jnp.full((max_symbols, batch), BLANK, jnp.int32)
        # A loop and not a scan: in most frames nobody speaks, and the predictor need not run.
        first = (jnp.zeros((), jnp.int32), state, likeliest(state, real), silence)
        _, state, _, ids = jax.lax.while_loop(goes_on, say, first)
        return state, ids

    by_frame = (frames.masked().values.swapaxes(0, 1), frames.mask.T)
    state, ids = jax.lax.scan(of_frame, state, by_frame)
    ids = ids.transpose(2, 0, 1).reshape(batch, time * max_symbols)
    said = ids != BLANK
    order = jnp.argsort(~said, axis=1, stable=True)
    ids = jnp.take_along_axis(ids, order, axis=1)
    return state, Sequence.from_lengths(ids, said.sum(axis=1, dtype=jnp.int32))
