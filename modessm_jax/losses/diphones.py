"""Labels for a head that says which phoneme follows which."""

import jax.numpy as jnp

from modessm_jax.phonemes import SILENCE, diphone_id
from modessm_jax.sequence import Sequence


def diphone_labels(labels: Sequence) -> Sequence:
    """The diphone class of every phoneme label; a sequence starts out of silence.

    Padding becomes 0. DCoND (Li et al. 2024, arXiv:2411.10657) charges CTC for these and for the
    phonemes that are left when the context is summed out.

    Args:
      labels: int `[batch, labels]` phoneme ids.
    """
    current = labels.masked().values
    start = jnp.full_like(current[:, :1], SILENCE)
    previous = jnp.concatenate([start, current], axis=1)[:, :-1]
    return labels.with_values(diphone_id(previous, current)).masked()
