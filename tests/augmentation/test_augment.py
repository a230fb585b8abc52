"""Every augmentation and corruption against its definition; padding and repeatability."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from modessm_jax.augmentation.augment import Augmentation, Corruption
from modessm_jax.sequence import Sequence

BATCH, TIME, CHANNELS = 16, 120, 9
LENGTHS = np.array([120, 97, 60, 1, 0, 40, 120, 33, 120, 120, 120, 80, 120, 120, 100, 120])


@functools.partial(jax.jit, static_argnums=0)
def _augmented(augmentation: Augmentation, features: Sequence, key):
    return augmentation(features, key)


def augmented(augmentation: Augmentation, features: Sequence, seed: int = 3):
    """Values, mask and hidden bins as numpy arrays."""
    out, hidden = _augmented(augmentation, features, jax.random.key(seed))
    return np.asarray(out.values), np.asarray(out.mask), np.asarray(hidden)


def trials(fill: float = 0.0, constant: float | None = None) -> Sequence:
    """Random (or constant) values, with `fill` for padding."""
    values = np.random.default_rng(0).normal(size=(BATCH, TIME, CHANNELS))
    if constant is not None:
        values = np.full_like(values, constant)
    real = np.arange(TIME)[None, :] < LENGTHS[:, None]
    values = np.where(real[..., None], values, fill).astype(np.float32)
    return Sequence(jnp.asarray(values), jnp.asarray(real))


def change(augmentation: Augmentation, constant: float = 0.0) -> np.ndarray:
    """What is added to trials of one constant value, NaN in the padding."""
    values, mask, _ = augmented(augmentation, trials(np.nan, constant))
    return np.where(mask[..., None], values - constant, np.nan)


EVERYTHING = Augmentation(
    white_noise=0.5,
    constant_offset=0.2,
    random_walk=0.1,
    static_gain=0.1,
    random_cut=3,
    time_warp=0.1,
    time_masks=20,
    channel_dropout=0.1,
    speckle=0.1,
)


def test_nothing_is_done_unless_asked_for():
    features = trials(np.nan)
    out, hidden = Augmentation()(features, jax.random.key(3))
    assert out is features
    assert not hidden.any()


def test_padding_never_reaches_a_real_bin():
    clean, mask, hidden = augmented(EVERYTHING, trials())
    dirty, _, hidden_too = augmented(EVERYTHING, trials(np.nan))
    np.testing.assert_array_equal(clean, dirty)
    np.testing.assert_array_equal(hidden, hidden_too)
    assert (dirty[~mask] == 0).all()
    assert not hidden[~mask].any()


def test_the_same_key_gives_the_same_trials_and_another_key_others():
    first, _, hidden = augmented(EVERYTHING, trials())
    again, _, hidden_again = augmented(EVERYTHING, trials())
    other, _, hidden_other = augmented(EVERYTHING, trials(), seed=4)
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(hidden, hidden_again)
    assert (first != other).any()
    assert (hidden != hidden_other).any()


def test_switching_a_term_off_leaves_the_draws_of_the_others():
    noise = change(Augmentation(white_noise=0.8))
    offset = change(Augmentation(constant_offset=0.2))
    both = change(Augmentation(white_noise=0.8, constant_offset=0.2))
    np.testing.assert_allclose(both, noise + offset, atol=1e-6)


def test_white_noise_is_normal_and_independent_everywhere():
    noise = change(Augmentation(white_noise=0.8))
    drawn = noise[~np.isnan(noise)]
    assert stats.kstest(drawn / 0.8, "norm").pvalue > 1e-3
    whole = noise[LENGTHS == TIME]
    flat = whole.reshape(-1, CHANNELS)
    across = np.corrcoef(flat.T) - np.eye(CHANNELS)
    assert np.abs(across).max() < 5 / np.sqrt(len(flat))
    along = np.corrcoef(whole[:, 1:].ravel(), whole[:, :-1].ravel())[0, 1]
    assert abs(along) < 5 / np.sqrt(whole.size)


def test_an_offset_belongs_to_a_trial_and_a_channel():
    offset = change(Augmentation(constant_offset=0.2))
    drawn = offset[LENGTHS > 0][:, 0]
    for row in np.flatnonzero(LENGTHS):
        assert (offset[row, : LENGTHS[row]] == offset[row, 0]).all()
    assert len(np.unique(drawn)) > 0.95 * drawn.size
    assert stats.kstest(drawn.ravel() / 0.2, "norm").pvalue > 1e-3


def test_a_walk_has_independent_steps():
    walk = change(Augmentation(random_walk=0.1))
    steps = np.diff(walk, axis=1, prepend=0)
    drawn = steps[~np.isnan(steps)]
    assert stats.kstest(drawn / 0.1, "norm").pvalue > 1e-3


def test_a_gain_multiplies_a_trials_channel():
    at_one = change(Augmentation(static_gain=0.1), 1.0)
    at_two = change(Augmentation(static_gain=0.1), 2.0)
    np.testing.assert_allclose(at_two, 2 * at_one, atol=1e-6)
    assert stats.kstest(at_one[LENGTHS > 0][:, 0].ravel() / 0.1, "norm").pvalue > 1e-3


def test_a_cut_moves_values_and_mask_together():
    features = trials(np.nan)
    before = np.asarray(features.values)
    seen = set()
    for seed in range(8):
        values, mask, _ = augmented(Augmentation(random_cut=3), features, seed)
        lengths = mask.sum(axis=1)
        dropped = LENGTHS - lengths
        assert (dropped[LENGTHS <= 1] == 0).all()
        for row in range(BATCH):
            expected = before[row, dropped[row] : LENGTHS[row]]
            np.testing.assert_array_equal(values[row, : lengths[row]], expected)
            assert not mask[row, lengths[row] :].any()
            assert (values[row, lengths[row] :] == 0).all()
        seen.update(dropped.tolist())
    assert seen == {0, 1, 2, 3}


def test_a_warp_moves_one_point_and_keeps_the_ends():
    real = np.arange(TIME)[None, :] < LENGTHS[:, None]
    ramp = np.broadcast_to(np.arange(TIME, dtype=np.float32)[None, :, None], (BATCH, TIME, 1))
    features = Sequence(jnp.asarray(np.where(real[..., None], ramp, np.nan)), jnp.asarray(real))
    furthest = 0.0
    for seed in range(20):
        values, mask, _ = augmented(Augmentation(time_warp=0.1), features, seed)
        np.testing.assert_array_equal(mask, real)
        for row in np.flatnonzero(LENGTHS > 1):
            last = LENGTHS[row] - 1
            source = values[row, : last + 1, 0]
            # A ramp comes out as the very times that were read: two straight lines, to the ends.
            np.testing.assert_allclose(source[[0, -1]], [0, last], atol=1e-3)
            rates = np.diff(source)
            assert (rates > 0).all()
            assert (np.abs(np.diff(rates)) > 1e-3).sum() <= 2
            moved = np.abs(source - np.arange(last + 1)).max() / last
            assert moved <= 0.1 + 1e-5
            furthest = max(furthest, moved)
    assert furthest > 0.08


def test_a_warp_reads_between_bins_in_a_straight_line():
    values, _, _ = augmented(Augmentation(time_warp=0.1), trials(np.nan))
    ramp = np.broadcast_to(np.arange(TIME, dtype=np.float32)[None, :, None], values.shape)
    source, _, _ = augmented(Augmentation(time_warp=0.1), trials().with_values(jnp.asarray(ramp)))
    before = np.asarray(trials().values)
    for row, length in enumerate(LENGTHS):
        for channel in range(CHANNELS):
            expected = np.interp(source[row, :length, 0], ramp[0, :, 0], before[row, :, channel])
            np.testing.assert_allclose(values[row, :length, channel], expected, atol=1e-4)


def test_speckle_zeroes_single_entries_and_keeps_the_mean():
    entries = 1 + change(Augmentation(speckle=0.2), 1.0)
    drawn = entries[~np.isnan(entries)]
    np.testing.assert_allclose(np.unique(drawn), [0, 1.25])
    assert stats.binomtest(int((drawn == 0).sum()), drawn.size, 0.2).pvalue > 1e-3


def test_channel_dropout_silences_a_channel_for_a_whole_trial():
    silent = drawn = 0
    for seed in range(4):
        values, _, _ = augmented(
            Augmentation(channel_dropout=0.3), trials(np.nan, constant=1.0), seed
        )
        whole = values[LENGTHS == TIME]
        np.testing.assert_array_equal(np.unique(whole), [0, 1])
        assert (whole == whole[:, :1]).all()
        silent += int((whole[:, 0] == 0).sum())
        drawn += whole[:, 0].size
    assert stats.binomtest(silent, drawn, 0.3).pvalue > 1e-3


def test_one_time_mask_is_one_span_of_at_most_its_share_of_the_trial():
    lengths_seen = {row: set() for row in range(BATCH)}
    starts = []
    one = Augmentation(time_masks=1, time_mask_fraction=0.1)
    for seed in range(60):
        _, _, hidden = augmented(one, trials(), seed)
        edges = np.diff(hidden.astype(int), axis=1, prepend=0)
        assert ((edges == 1).sum(axis=1) <= 1).all()
        for row, count in enumerate(hidden.sum(axis=1)):
            lengths_seen[row].add(int(count))
            if LENGTHS[row] == TIME and count:
                starts.append(int(hidden[row].argmax()))
    for row in range(BATCH):
        assert max(lengths_seen[row]) <= 0.1 * LENGTHS[row]
    assert lengths_seen[0] == set(range(13))
    assert lengths_seen[3] == lengths_seen[4] == {0}
    assert min(starts) < 5
    assert max(starts) > TIME - 10


def test_twenty_masks_hide_about_half_of_every_trial():
    shares = []
    for seed in range(30):
        _, _, hidden = augmented(Augmentation(time_masks=20), trials(), seed)
        shares.append(hidden.sum(axis=1) / np.maximum(LENGTHS, 1))
    mean = np.mean(shares, axis=0)
    # Twenty spans of 3.75 % on average, overlapping: 1 - exp(-0.75) away from the edges.
    np.testing.assert_allclose(mean[LENGTHS >= 97], 0.5, atol=0.06)


def test_masks_depend_on_the_trials_own_length_alone():
    features = trials()
    _, _, hidden = augmented(Augmentation(time_masks=20), features)
    _, _, longer = augmented(Augmentation(time_masks=20), features.pad_to_multiple(200))
    np.testing.assert_array_equal(longer[:, :TIME], hidden)


def test_two_views_are_cut_and_warped_alike_and_drawn_apart():
    features = trials()
    key = jax.random.key(0)
    cut = Augmentation(random_cut=5, time_warp=0.2)
    one, _ = cut(features, key)
    both, _ = cut(features, key, 2)
    for view in range(2):
        np.testing.assert_array_equal(both.values[view::2], one.values)
        np.testing.assert_array_equal(both.mask[view::2], one.mask)
    noisy, hidden = Augmentation(random_cut=5, white_noise=1.0, time_masks=20)(features, key, 2)
    row = 2 * int(np.argmax(LENGTHS))
    assert not jnp.array_equal(noisy.values[row], noisy.values[row + 1])
    assert not jnp.array_equal(hidden[row], hidden[row + 1])
    assert hidden.shape == noisy.mask.shape


@pytest.mark.parametrize(
    "field",
    [
        {"white_noise": -1.0},
        {"random_cut": -1},
        {"speckle": 1.0},
        {"channel_dropout": 1.5},
        {"time_warp": 0.25},
    ],
)
def test_impossible_settings_are_refused(field):
    with pytest.raises(ValueError, match=next(iter(field))):
        Augmentation(**field)


SHORT = np.array([60, 41, 1, 0, 60, 2, 60, 30])
EVERY_FAULT = Corruption(dropped=0.2, jitter=3, noise=0.5)


@functools.partial(jax.jit, static_argnums=0)
def _corrupted(corruption: Corruption, features: Sequence, key) -> Sequence:
    return corruption(features, key)


def corrupted(corruption: Corruption, features: Sequence, seed: int = 3) -> np.ndarray:
    out = _corrupted(corruption, features, jax.random.key(seed))
    np.testing.assert_array_equal(out.mask, features.mask)
    return np.asarray(out.values)


def short_trials(fill: float = np.nan, dtype=np.float32) -> Sequence:
    """Random values above 1, with `fill` for padding."""
    values = 1 + np.random.default_rng(0).random(size=(8, 60, 31))
    real = np.arange(60)[None, :] < SHORT[:, None]
    return Sequence(jnp.asarray(np.where(real[..., None], values, fill), dtype), jnp.asarray(real))


def uncorrupted() -> np.ndarray:
    return np.asarray(short_trials(0.0).values)


def test_a_corruption_without_terms_changes_nothing():
    np.testing.assert_array_equal(corrupted(Corruption(), short_trials()), uncorrupted())


def test_corruption_ignores_padding():
    found = corrupted(EVERY_FAULT, short_trials())
    np.testing.assert_array_equal(found, corrupted(EVERY_FAULT, short_trials(7.0)))
    assert (found[~np.asarray(short_trials().mask)] == 0).all()


def test_corruption_does_not_depend_on_the_length_of_the_batch():
    corruption = Corruption(dropped=0.2, jitter=3)
    longer = corrupted(corruption, short_trials().pad_to_multiple(100))
    np.testing.assert_array_equal(longer[:, :60], corrupted(corruption, short_trials()))


def test_the_same_key_gives_the_same_corruption_and_another_key_another():
    first = corrupted(EVERY_FAULT, short_trials())
    np.testing.assert_array_equal(first, corrupted(EVERY_FAULT, short_trials()))
    assert (first != corrupted(EVERY_FAULT, short_trials(), seed=4)).any()


def test_dropped_channels_are_silent_throughout_and_carry_no_noise():
    silent = drawn = 0
    for seed in range(8):
        found = corrupted(Corruption(dropped=0.3, noise=0.5), short_trials(), seed)
        whole = found[SHORT == 60]
        zero = whole == 0
        assert (zero == zero[:, :1]).all()
        silent += int(zero[:, 0].sum())
        drawn += zero[:, 0].size
        assert len(np.unique(zero[:, 0], axis=0)) == len(whole)  # each trial loses its own
    assert stats.binomtest(silent, drawn, 0.3).pvalue > 1e-3


def test_jitter_moves_each_channel_by_a_shift_of_its_own_and_fills_with_zeros():
    counts = dict.fromkeys(range(-3, 4), 0)
    before = uncorrupted()
    for seed in range(4):
        found = corrupted(Corruption(jitter=3), short_trials(), seed)
        for row in np.flatnonzero(SHORT >= 30):
            length = SHORT[row]
            for channel in range(31):
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


def test_noise_of_a_corruption_is_white_and_normal():
    added = corrupted(Corruption(noise=0.5), short_trials()) - uncorrupted()
    whole = added[SHORT == 60]
    assert stats.kstest(whole.ravel() / 0.5, "norm").pvalue > 1e-3
    limit = 5 / np.sqrt(whole.size)
    assert abs(np.corrcoef(whole[:, 1:].ravel(), whole[:, :-1].ravel())[0, 1]) < limit
    assert abs(np.corrcoef(whole[..., 1:].ravel(), whole[..., :-1].ravel())[0, 1]) < limit


def test_switching_a_fault_off_leaves_the_draws_of_the_others():
    noise = corrupted(Corruption(noise=0.5), short_trials()) - uncorrupted()
    shifted = corrupted(Corruption(jitter=2), short_trials())
    both = corrupted(Corruption(jitter=2, noise=0.5), short_trials())
    np.testing.assert_allclose(both, shifted + noise, atol=1e-6)
    dropped = corrupted(Corruption(dropped=0.3), short_trials()) == 0
    all_three = corrupted(Corruption(dropped=0.3, jitter=2, noise=0.5), short_trials())
    np.testing.assert_allclose(all_three, np.where(dropped, 0, both), atol=1e-6)


def test_corruption_keeps_half_precision():
    out = _corrupted(EVERY_FAULT, short_trials(dtype=jnp.bfloat16), jax.random.key(0))
    assert out.values.dtype == jnp.bfloat16


@pytest.mark.parametrize(
    "field", [{"dropped": 1.0}, {"dropped": -0.1}, {"jitter": -1}, {"noise": np.nan}]
)
def test_impossible_corruptions_are_refused(field):
    with pytest.raises(ValueError, match=rf"corruption\.{next(iter(field))}"):
        Corruption(**field)
