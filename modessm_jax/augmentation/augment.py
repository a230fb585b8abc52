"""Random changes to a batch of neural features, on the device, inside the training step.

`Augmentation` is that of the benchmarks. `Corruption` imitates bad electrodes: the flow bridge is
trained to restore the clean features. Both draw anew for each trial from the step's key, and a term
that is off is never traced.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, Key

from modessm_jax.augmentation.fast_random import event, normal
from modessm_jax.sequence import Sequence


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """Data augmentation for training; every term is off unless given. Times are in bins.

    Noise, offset, walk, gain and cut are those of the Brain-to-Text baselines (Willett et al. 2023,
    Card et al. 2024), which use white_noise 0.8 to 1.0, constant_offset 0.2 and random_cut 2. Time
    masks are those of the time-masked Transformer (Feghhi et al. 2025): 20 spans of up to 7.5 %
    hide about half of every trial.

    Attributes:
      white_noise: standard deviation of noise drawn for each bin and channel.
      constant_offset: standard deviation of an offset drawn for each trial and channel.
      random_walk: standard deviation of the steps of a walk along time, for each trial and channel.
      static_gain: standard deviation, around 1, of a gain drawn for each trial and channel.
      random_cut: most bins dropped from a trial's start; every number up to that is equally
        likely, and at least one bin stays.
      time_warp: a point in the middle half of each trial moves by up to that fraction of the trial;
        what is before and after it is stretched or compressed to fit, and the length stays the same
        (Park et al. 2019; here by linear interpolation).
      time_masks: spans hidden in each trial; they may overlap.
      time_mask_fraction: longest span as a fraction of the trial's own length; lengths from 0 to
        that are equally likely.
      channel_dropout: probability that a channel is silent (zero) for a whole trial.
      speckle: probability that a single bin of a single channel is zeroed; the others are divided
        by 1 - speckle (coordinated dropout, Keshtkaran & Pandarinath 2019).

    Raises:
      ValueError: a negative size, a probability or fraction outside [0, 1), or a warp of a quarter
        or more, which would move the point out of the trial.
    """

    white_noise: float = 0.0
    constant_offset: float = 0.0
    random_walk: float = 0.0
    static_gain: float = 0.0
    random_cut: int = 0
    time_warp: float = 0.0
    time_masks: int = 0
    time_mask_fraction: float = 0.075
    channel_dropout: float = 0.0
    speckle: float = 0.0

    def __post_init__(self) -> None:
        _check_not_negative("augment", self)
        for name in ("time_mask_fraction", "channel_dropout", "speckle"):
            if getattr(self, name) >= 1:
                raise ValueError(f"augment.{name} is {getattr(self, name)}; it must be below 1")
        if self.time_warp >= 0.25:
            raise ValueError(f"augment.time_warp is {self.time_warp}; it must be below 0.25")

    def __call__(
        self, features: Sequence, key: Key[Array, ""], views: int = 1
    ) -> tuple[Sequence, Bool[Array, "rows time"]]:
        """Augments a batch, a pure function of the key.

        Args:
          features: `[batch, time, channels]`.
          key: all random numbers follow from it.
          views: how many times each trial is augmented; its views follow each other in the result.
            They share cut and warp, so that they agree in time; all else is drawn for each.

        Returns:
          The features, with zeros for padding (unchanged if every term is off), and the mask of
          hidden bins. The model hides them: it puts its mask vector there after smoothing, so that
          neighbouring bins do not reveal what is hidden.
        """
        # One key a term, so that switching one off leaves the draws of the others as they were.
        terms = jax.random.split(key, 9)
        if self.random_cut:
            features = _cut(features, terms[0], self.random_cut)
        if self.time_warp:
            features = _warp(features, terms[8], self.time_warp)
        if views > 1:
            features = jax.tree.map(lambda x: jnp.repeat(x, views, axis=0), features)
        values = features.values
        batch, _, channels = values.shape
        of_trial = (batch, 1, channels)
        if self.static_gain:
            values = values * (1 + self.static_gain * normal(terms[1], of_trial, values.dtype))
        if self.white_noise:
            values = values + self.white_noise * normal(terms[2], values.shape, values.dtype)
        if self.constant_offset:
            values = values + self.constant_offset * normal(terms[3], of_trial, values.dtype)
        if self.random_walk:
            steps = normal(terms[4], values.shape, values.dtype)
            values = values + self.random_walk * jnp.cumsum(steps, axis=1)
        if self.speckle:
            kept = ~event(terms[5], values.shape, self.speckle)
            values = jnp.where(kept, values / (1 - self.speckle), 0)
        if self.channel_dropout:
            values = jnp.where(event(terms[6], of_trial, self.channel_dropout), 0, values)
        if values is not features.values:
            features = features.with_values(values).masked()
        hidden = jnp.zeros_like(features.mask)
        if self.time_masks:
            hidden = _spans(features, terms[7], self.time_masks, self.time_mask_fraction)
        return features, hidden


def _cut(features: Sequence, key: Key[Array, ""], most: int) -> Sequence:
    """Drops up to `most` bins from the start of each trial by moving what is left to the front."""
    lengths = features.lengths
    drawn = jax.random.randint(key, lengths.shape, 0, most + 1)
    dropped = jnp.clip(drawn, 0, jnp.maximum(lengths - 1, 0))
    values = jnp.pad(features.masked().values, ((0, 0), (0, most), (0, 0)))
    size = features.mask.shape[1]

    def shift(trial: Array, start: Array) -> Array:
        return jax.lax.dynamic_slice_in_dim(trial, start, size)

    return Sequence.from_lengths(jax.vmap(shift)(values, dropped), lengths - dropped)


def _warp(features: Sequence, key: Key[Array, ""], most: float) -> Sequence:
    """Moves a point of each trial by up to `most` of its length, and stretches time around it."""
    last = jnp.maximum(features.lengths - 1, 1).astype(features.values.dtype)[:, None]
    uniform = jax.random.uniform(key, (2, *last.shape), last.dtype)
    point = last * (0.25 + 0.5 * uniform[0])
    origin = point + last * most * (2 * uniform[1] - 1)
    time = jnp.arange(features.mask.shape[1], dtype=last.dtype)[None, :]
    before = time * (origin / point)
    after = last - (last - time) * ((last - origin) / (last - point))
    source = jnp.clip(jnp.where(time < point, before, after), 0, last)
    low = jnp.floor(source).astype(jnp.int32)
    share = (source - low)[..., None]
    values = features.masked().values
    high = jnp.minimum(low + 1, values.shape[1] - 1)
    left, right = (jnp.take_along_axis(values, index[..., None], axis=1) for index in (low, high))
    return features.with_values(left + share * (right - left)).masked()


def _spans(
    features: Sequence, key: Key[Array, ""], number: int, fraction: float
) -> Bool[Array, "batch time"]:
    """Bins covered by `number` random spans, placed anywhere within the trial."""
    size: Int[Array, "batch 1"] = features.lengths[:, None]
    longest = jnp.floor(fraction * size).astype(jnp.int32)
    uniform = jax.random.uniform(key, (2, size.shape[0], number))
    span = jnp.floor(uniform[0] * (longest + 1)).astype(jnp.int32)
    start = jnp.floor(uniform[1] * (size - span + 1)).astype(jnp.int32)
    time = jnp.arange(features.mask.shape[1])[None, None, :]
    covered = (time >= start[..., None]) & (time < (start + span)[..., None])
    return covered.any(axis=1) & features.mask


@dataclasses.dataclass(frozen=True)
class Corruption:
    """Simulated faults of electrodes, drawn for each trial; every term is off unless given.

    A corrupted trial keeps its length, so that it can be compared with the clean one bin by bin.

    Attributes:
      dropped: probability that a channel is silent (zero, without noise) for a whole trial.
      jitter: most bins by which a channel is early or late for a whole trial; every shift up to
        that is equally likely, and bins from outside the trial are zero.
      noise: standard deviation of white noise, drawn for each bin and channel.

    Raises:
      ValueError: a negative size, or a probability outside [0, 1).
    """

    dropped: float = 0.0
    jitter: int = 0
    noise: float = 0.0

    def __post_init__(self) -> None:
        _check_not_negative("corruption", self)
        if self.dropped >= 1:
            raise ValueError(f"corruption.dropped is {self.dropped}; it must be below 1")

    def __call__(self, features: Sequence, key: Key[Array, ""]) -> Sequence:
        """Corrupts `[batch, time, channels]`, a pure function of the key; padding becomes 0."""
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
    """Moves each channel of each trial in time by `-most` to `most` bins, drawn for each."""
    batch, time, channels = values.shape
    drawn = jax.random.randint(key, (batch, 1, channels), 0, 2 * most + 1)
    padded = jnp.pad(values, ((0, 0), (most, most), (0, 0)))
    return jnp.take_along_axis(padded, drawn + jnp.arange(time)[None, :, None], axis=1)


def _check_not_negative(section: str, settings: Augmentation | Corruption) -> None:
    for name, value in dataclasses.asdict(settings).items():
        if not value >= 0:  # nor NaN
            raise ValueError(f"{section}.{name} is {value}; it may not be negative")
