"""Greedy CTC decoding: the best class of every frame, repeats merged, blanks removed."""

import jax
import jax.numpy as jnp
import numpy as np

from modessm_jax.phonemes import BLANK
from modessm_jax.sequence import Sequence


@jax.jit
def greedy(logits: Sequence) -> Sequence:
    """Phonemes of the single best alignment (Graves et al. 2006, "best path decoding").

    Repeats are merged before blanks are removed, so a blank between two equal phonemes keeps both.

    Args:
      logits: `[batch, frames, classes]`; only their order within a frame matters.

    Returns:
      int32 phoneme ids `[batch, frames]`, those of an example first, 0 in the padding.
    """
    best = jnp.argmax(logits.values, axis=-1).astype(jnp.int32)
    batch, frames = best.shape
    before = jnp.pad(best, ((0, 0), (1, 0)), constant_values=BLANK)[:, :-1]
    kept = logits.mask & (best != BLANK) & (best != before)
    # What is not kept is sent past the end, where the scatter drops it.
    position = jnp.where(kept, jnp.cumsum(kept, axis=1, dtype=jnp.int32) - 1, frames)
    rows = jnp.arange(batch)[:, None]
    ids = jnp.full((batch, frames), BLANK, jnp.int32).at[rows, position].set(best, mode="drop")
    return Sequence.from_lengths(ids, kept.sum(axis=1, dtype=jnp.int32))


def to_lists(ids: Sequence) -> list[list[int]]:
    """The ids of each example without padding, on the host."""
    values, mask = np.asarray(ids.values), np.asarray(ids.mask)
    return [row[real].tolist() for row, real in zip(values, mask, strict=True)]
