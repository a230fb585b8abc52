"""From diphones to phonemes: a phoneme is as likely as its diphones together.

DCoND, Li et al. 2024, "Brain-to-text decoding with context-aware neural representations and large
language models" (arXiv:2411.10657): the model says which phoneme follows which, is charged CTC for
that, and for the phonemes that remain when the context is summed out.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from modessm_jax.phonemes import CLASSES, DIPHONES, SILENCE
from modessm_jax.sequence import Sequence


def phoneme_log_probabilities(
    logits: Float[Array, "batch frames diphones"],
) -> Float[Array, "batch frames classes"]:
    """Log probabilities of the blank and of each phoneme, summed over the phoneme before it.

    They are logits of the same distribution, and stand wherever phoneme logits do. In float32.

    Args:
      logits: of `phonemes.DIPHONES` classes, not normalised.
    """
    scores = jax.nn.log_softmax(logits.astype(jnp.float32), axis=-1)
    by_context = scores[..., 1:].reshape(*scores.shape[:-1], CLASSES - 1, CLASSES - 1)
    phonemes = jax.nn.logsumexp(by_context, axis=-2)
    return jnp.concatenate([scores[..., :1], phonemes], axis=-1)


def diphone_labels(labels: Sequence) -> Sequence:
    """The diphone class of every phoneme label; a sequence starts out of silence.

    As `phonemes.diphone_ids`, for padded batches; padding becomes 0.

    Args:
      labels: int `[batch, labels]` phoneme ids.
    """
    current = labels.values
    start = jnp.full_like(current[:, :1], SILENCE)
    previous = jnp.concatenate([start, current], axis=1)[:, :-1]
    return labels.with_values(_diphone(previous, current)).masked()


def _diphone(
    previous: Int[Array, "batch labels"], current: Int[Array, "batch labels"]
) -> Int[Array, "batch labels"]:
    pair = (CLASSES - 1) * (previous - 1) + (current - 1)
    return jnp.clip(1 + pair, 0, DIPHONES - 1)
