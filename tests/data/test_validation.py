from pathlib import Path

import numpy as np
import pytest

from modessm_jax.data.validation import bad_channels, data_error, length_reason, repair


def test_bad_channels_are_counted_once():
    features = np.random.default_rng(0).normal(size=(9, 20)).astype(np.float32)
    assert bad_channels(features) == (0, 0)
    features[:, 3] = 5.0
    features[2, 7] = np.nan
    assert bad_channels(features) == (1, 1)
    features[:, 8] = np.inf
    assert bad_channels(features) == (1, 2)


def test_a_single_bin_has_no_dead_channels():
    assert bad_channels(np.ones((1, 4))) == bad_channels(np.ones((0, 4))) == (0, 0)


def test_repair_zeroes_what_is_not_finite_and_nothing_else():
    features = np.array([[1.5, np.nan, np.inf], [-np.inf, 3.0, -2.0]], np.float32)
    np.testing.assert_array_equal(repair(features), np.array([[1.5, 0, 0], [0, 3, -2]], np.float32))


@pytest.mark.parametrize(
    ("bins", "words"), [(2, "under 50 ms"), (3, None), (3000, None), (3001, "over 60 s")]
)
def test_lengths_worth_training_on(bins, words):
    reason = length_reason(bins)
    assert reason is None if words is None else words in str(reason)


def test_messages_leave_out_empty_parts():
    assert str(data_error(Path("a/b"), "", "", "is odd", "Repair it")) == "a/b: is odd. Repair it."
    whole = data_error(Path("a/b"), "trial_0001", "seq_len", "is odd", "Repair it")
    assert str(whole) == "a/b, trial_0001, seq_len: is odd. Repair it."
