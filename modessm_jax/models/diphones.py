"""From diphones to phonemes: a phoneme is as likely as its diphones together."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from modessm_jax.phonemes import by_previous


def phoneme_log_probabilities(
    logits: Float[Array, "batch frames diphones"],
) -> Float[Array, "batch frames classes"]:
    """Log probabilities of the blank and of each phoneme, summed over the phoneme before it.

    They are logits of the same distribution, and stand wherever phoneme logits do. In float32.
    DCoND, Li et al. 2024, "Brain-to-text decoding with context-aware neural representations and
    large language models" (arXiv:2411.10657).

    Args:
      logits: of `phonemes.DIPHONES` classes, not normalised.
    """
    scores = jax.nn.log_softmax(logits.astype(jnp.float32), axis=-1)
    phonemes = jax.nn.logsumexp(by_previous(scores), axis=-2)
    return jnp.concatenate([scores[..., :1], phonemes], axis=-1)
