"""Flow matching, per example, in nats."""

import jax.numpy as jnp

from modessm_jax.losses.cost import Cost
from modessm_jax.sequence import Sequence


def flow_cost(predicted: Sequence, target: Sequence) -> Cost:
    """Half the squared error of a velocity, averaged over features, summed over real frames.

    The regression of conditional flow matching (Lipman et al. 2023), as nats per feature of a
    Gaussian of unit variance. Summed, so that the normaliser of the other costs turns it into a
    mean per frame (or per label).

    Args:
      predicted: `[batch, frames, d]` of any float type.
      target: what it should be; only frames real in both count.

    Returns:
      One cost per example; an example without frames is not valid.
    """
    mask = predicted.mask & target.mask
    own, wanted = (
        jnp.where(mask[..., None], x.values.astype(jnp.float32), 0.0) for x in (predicted, target)
    )
    squares = jnp.mean((own - wanted) ** 2, axis=-1)
    return Cost(nats=0.5 * squares.sum(axis=1), valid=mask.any(axis=1))
