"""Random keys: every purpose draws from a root of its own, made from a seed."""

import enum

import jax
from jaxtyping import Array, Int, Key


class Purpose(enum.IntEnum):
    """What random numbers are drawn for. The tags lie above any step or trial number."""

    PARAMETERS = 2**31  # their initial values
    AUGMENTATION = enum.auto()
    CORRUPTION = enum.auto()  # of the trials that train the flow bridge
    DROPOUT = enum.auto()  # and all else that a model draws while it trains
    DAMAGE = enum.auto()  # of the trials that are scored
    NOISE = enum.auto()  # on the features that are decoded


def root(seed: int | Int[Array, ""], purpose: Purpose) -> Key[Array, ""]:
    """The key that all random numbers for a purpose follow from."""
    return jax.random.fold_in(jax.random.key(seed), int(purpose))


def keys_of_step(
    seed: int | Int[Array, ""], step: Int[Array, ""], *, tagged: bool = True
) -> dict[Purpose, Key[Array, ""]]:
    """The keys of a training step, by purpose.

    Args:
      seed: of the run.
      step: updates made before.
      tagged: False for a run begun in format 1 or 2, whose keys had no roots of their own: the
        corruption's key is that of a term of the augmentation.
    """
    if tagged:
        purposes = (Purpose.AUGMENTATION, Purpose.CORRUPTION, Purpose.DROPOUT)
        return {purpose: jax.random.fold_in(root(seed, purpose), step) for purpose in purposes}
    augment, dropout = jax.random.split(jax.random.fold_in(jax.random.key(seed), step))
    return {
        Purpose.AUGMENTATION: augment,
        Purpose.CORRUPTION: jax.random.fold_in(augment, 1),
        Purpose.DROPOUT: dropout,
    }


def damage_root(*, tagged: bool = True) -> Key[Array, ""]:
    """The root of the damage to trials that are scored: one for all runs; `tagged` as above."""
    return root(0, Purpose.DAMAGE) if tagged else jax.random.key(0)
