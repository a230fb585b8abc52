"""CTC decoding of frames into phonemes, and the alignment of frames with known phonemes."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from modessm_jax.phonemes import BLANK
from modessm_jax.sequence import Sequence


@jax.jit
def greedy(logits: Sequence) -> Sequence:
    """The best class of every frame, repeats merged, blanks removed.

    Graves et al. 2006, "best path decoding". Repeats are merged before blanks are removed, so a
    blank between two equal phonemes keeps both.

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


def align(
    log_probabilities: Float[np.ndarray, "frames classes"], labels: Int[np.ndarray, "labels"]
) -> Int[np.ndarray, "labels 2"]:
    """First and last frame of each label on the single most likely path (Viterbi).

    Args:
      log_probabilities: of the classes in each frame, blank included.
      labels: phoneme ids, without blanks.

    Raises:
      ValueError: there are fewer frames than labels and blanks between equal labels, every path has
        probability zero, or the log probabilities hold NaN.
    """
    frames = len(log_probabilities)
    labels = np.asarray(labels, np.int64)
    if frames < len(labels) + int((labels[1:] == labels[:-1]).sum()):
        raise ValueError(f"{frames} frames are too few to align {len(labels)} labels")
    if not len(labels):
        return np.zeros((0, 2), np.int64)
    # States alternate: blank, label, blank, ..., label, blank.
    states = np.full(2 * len(labels) + 1, BLANK)
    states[1::2] = labels
    skips = np.zeros(len(states), bool)
    skips[3::2] = labels[1:] != labels[:-1]
    emitted = log_probabilities[:, states]
    score = np.full(len(states), -np.inf)
    score[:2] = emitted[0, :2]
    steps = np.zeros((frames, len(states)), np.int64)
    for frame in range(1, frames):
        one = np.concatenate([[-np.inf], score[:-1]])
        two = np.where(skips, np.concatenate([[-np.inf] * 2, score[:-2]]), -np.inf)
        options = np.stack([score, one, two])
        steps[frame] = options.argmax(axis=0)
        score = options.max(axis=0) + emitted[frame]
    if not score[-2:].max() > -np.inf:
        raise ValueError(
            f"no path through the {frames} frames gives the labels {labels.tolist()} any "
            "probability; look for NaN or -inf in the log probabilities"
        )
    state = len(states) - 1 if score[-1] >= score[-2] else len(states) - 2
    path = np.zeros(frames, np.int64)
    for frame in range(frames - 1, -1, -1):
        path[frame] = state
        state -= steps[frame, state]
    spans = [np.flatnonzero(path == 2 * label + 1)[[0, -1]] for label in range(len(labels))]
    return np.stack(spans)
