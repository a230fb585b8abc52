"""Damage to neural features on the device: the input that the flow bridge learns to mend."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from modessm_jax.data.draws import event, normal
from modessm_jax.sequence import Sequence


@dataclasses.dataclass(frozen=True)
class Corruption:
    """What goes wrong with electrodes, drawn afresh for each trial; a term of 0 is off.

    A corrupted trial keeps its bins, so that it can be compared with the clean one bin by bin. A
    silent channel is silent altogether: it carries no noise.

    Attributes:
      dropped: probability that a channel is silent (zero) for a whole trial.
      jitter: most bins by which a channel is early or late for a whole trial; each shift up to that
        is equally likely, and zeros take the place of what would come from outside the trial.
      noise: standard deviation of white noise, drawn for each bin and channel.

    Raises:
      ValueError: a negative size, or a probability outside [0, 1).
    """

    dropped: float = 0.0
    jitter: int = 0
    noise: float = 0.0

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if not value >= 0:
                raise ValueError(f"corruption.{field.name} is {value}; it may not be negative")
        if self.dropped >= 1:
            raise ValueError(f"corruption.dropped is {self.dropped}; it must be below 1")

    def __call__(self, features: Sequence, key: Key[Array, ""]) -> Sequence:
        """Corrupts `[batch, time, channels]`, a pure function of the key; padding becomes zero."""
        # One key a term, so that switching one off leaves the draws of the others as they were.
        of_jitter, of_noise, of_dropped = jax.random.split(key, 3)
        values = features.masked().values
        batch, _, channels = values.shape
        if self.jitter:
            values = _shifted(values, of_jitter, self.jitter)
        if self.noise:
            values = values + self.noise * normal(of_noise, values.shape, values.dtype)
        if self.dropped:
            values = jnp.where(event(of_dropped, (batch, 1, channels), self.dropped), 0, values)
        return features.with_values(values).masked()


def _shifted(values: Array, key: Key[Array, ""], most: int) -> Array:
    """Each channel of each trial moved in time by its own draw from `-most` to `most` bins."""
    batch, time, channels = values.shape
    drawn = jax.random.randint(key, (batch, 1, channels), 0, 2 * most + 1)
    padded = jnp.pad(values, ((0, 0), (most, most), (0, 0)))
    return jnp.take_along_axis(padded, drawn + jnp.arange(time)[None, :, None], axis=1)
