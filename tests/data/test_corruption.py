"""Every kind of damage against its definition; what must not change: padding and repeatability."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from modessm_jax.data.augment import Corruption
from modessm_jax.sequence import Sequence

BATCH, TIME, CHANNELS = 8, 60, 31
LENGTHS = np.array([60, 41, 1, 0, 60, 2, 60, 30])
EVERYTHING = Corruption(dropped=0.2, jitter=3, noise=0.5)


@functools.partial(jax.jit, static_argnums=0)
def _corrupted(corruption: Corruption, features: Sequence, key) -> Sequence:
    return corruption(features, key)


def corrupted(corruption: Corruption, features: Sequence, seed: int = 3) -> np.ndarray:
    out = _corrupted(corruption, features, jax.random.key(seed))
    np.testing.assert_array_equal(out.mask, features.mask)
    return np.asarray(out.values)


def trials(fill: float = np.nan, dtype=np.float32) -> Sequence:
    """Random values above 1, with `fill` for padding."""
    values = 1 + np.random.default_rng(0).random(size=(BATCH, TIME, CHANNELS))
    real = np.arange(TIME)[None, :] < LENGTHS[:, None]
    return Sequence(jnp.asarray(np.where(real[..., None], values, fill), dtype), jnp.asarray(real))


def clean() -> np.ndarray:
    return np.asarray(trials(0.0).values)


def test_nothing_is_damaged_unless_asked_for():
    np.testing.assert_array_equal(corrupted(Corruption(), trials()), clean())


def test_padding_never_reaches_a_real_bin():
    found = corrupted(EVERYTHING, trials())
    np.testing.assert_array_equal(found, corrupted(EVERYTHING, trials(7.0)))
    assert (found[~np.asarray(trials().mask)] == 0).all()


def test_the_length_of_the_batch_changes_nothing():
    corruption = Corruption(dropped=0.2, jitter=3)
    longer = corrupted(corruption, trials().pad_to_multiple(100))
    np.testing.assert_array_equal(longer[:, :TIME], corrupted(corruption, trials()))


def test_the_same_key_gives_the_same_damage_and_another_key_other():
    first = corrupted(EVERYTHING, trials())
    np.testing.assert_array_equal(first, corrupted(EVERYTHING, trials()))
    assert (first != corrupted(EVERYTHING, trials(), seed=4)).any()


def test_dropped_channels_are_silent_throughout_and_keep_no_noise():
    silent = drawn = 0
    for seed in range(8):
        found = corrupted(Corruption(dropped=0.3, noise=0.5), trials(), seed)
        whole = found[LENGTHS == TIME]
        zero = whole == 0
        assert (zero == zero[:, :1]).all()
        silent += int(zero[:, 0].sum())
        drawn += zero[:, 0].size
        assert len(np.unique(zero[:, 0], axis=0)) == len(whole)  # each trial loses its own
    assert stats.binomtest(silent, drawn, 0.3).pvalue > 1e-3


def test_jitter_moves_each_channel_by_a_shift_of_its_own_and_fills_with_zeros():
    counts = dict.fromkeys(range(-3, 4), 0)
    before = clean()
    for seed in range(4):
        found = corrupted(Corruption(jitter=3), trials(), seed)
        for row in np.flatnonzero(LENGTHS >= 30):
            length = LENGTHS[row]
            for channel in range(CHANNELS):
                padded = np.pad(before[row, :length, channel], 3)
                fits = [
                    shift
                    for shift in counts
                    if (
                        padded[3 - shift : 3 - shift + length] == found[row, :length, channel]
                    ).all()
                ]
                assert len(fits) == 1
                counts[fits[0]] += 1
    assert stats.chisquare(list(counts.values())).pvalue > 1e-3


def test_noise_is_white_and_normal():
    added = corrupted(Corruption(noise=0.5), trials()) - clean()
    whole = added[LENGTHS == TIME]
    assert stats.kstest(whole.ravel() / 0.5, "norm").pvalue > 1e-3
    limit = 5 / np.sqrt(whole.size)
    assert abs(np.corrcoef(whole[:, 1:].ravel(), whole[:, :-1].ravel())[0, 1]) < limit
    assert abs(np.corrcoef(whole[..., 1:].ravel(), whole[..., :-1].ravel())[0, 1]) < limit


def test_switching_a_term_off_leaves_the_draws_of_the_others():
    noise = corrupted(Corruption(noise=0.5), trials()) - clean()
    shifted = corrupted(Corruption(jitter=2), trials())
    both = corrupted(Corruption(jitter=2, noise=0.5), trials())
    np.testing.assert_allclose(both, shifted + noise, atol=1e-6)
    dropped = corrupted(Corruption(dropped=0.3), trials()) == 0
    all_three = corrupted(Corruption(dropped=0.3, jitter=2, noise=0.5), trials())
    np.testing.assert_allclose(all_three, np.where(dropped, 0, both), atol=1e-6)


def test_half_precision_stays_half():
    out = _corrupted(EVERYTHING, trials(dtype=jnp.bfloat16), jax.random.key(0))
    assert out.values.dtype == jnp.bfloat16


@pytest.mark.parametrize(
    "field", [{"dropped": 1.0}, {"dropped": -0.1}, {"jitter": -1}, {"noise": np.nan}]
)
def test_impossible_settings_are_refused(field):
    with pytest.raises(ValueError, match=rf"corruption\.{next(iter(field))}"):
        Corruption(**field)
