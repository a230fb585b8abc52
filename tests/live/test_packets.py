"""Packets become one gapless sequence by rule, and every bin is counted."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modessm_jax.live.packets import MAX_JUMP, Counts, Gapless, Packet
from tests.live.scripted import CHANNELS, bins_of


def packet(number: int, bins: int = 1, channels: int = CHANNELS) -> Packet:
    values = bins_of(range(number, number + bins))
    return Packet(number, np.resize(values, (bins, channels)), 0.0)


def taken(gapless: Gapless, *packets: Packet) -> np.ndarray:
    """Everything passed on for packets among which the source does not begin anew."""
    found = [gapless.take(one) for one in packets]
    assert not any(one.jumped for one in found)
    return np.concatenate([one.bins for one in found])


def test_packets_in_a_row_are_passed_on():
    gapless = Gapless(CHANNELS)
    found = taken(gapless, packet(7, 3), packet(10), packet(11, 0), packet(11, 5))
    np.testing.assert_array_equal(found, bins_of(range(7, 16)))
    assert gapless.counts == Counts(used=9)


def test_lost_bins_are_missing_and_come_too_late():
    gapless = Gapless(CHANNELS)
    found = taken(gapless, packet(0, 2), packet(5, 2), packet(3), packet(3), packet(7))
    whole = bins_of(range(8))
    whole[2:5] = np.nan
    np.testing.assert_array_equal(found, whole)
    assert gapless.counts == Counts(used=5, lost=3, late=1, doubled=1)


def test_a_packet_that_overlaps_gives_what_is_new():
    gapless = Gapless(CHANNELS)
    found = taken(gapless, packet(0, 4), packet(2, 4))
    np.testing.assert_array_equal(found, bins_of(range(6)))
    assert gapless.counts == Counts(used=6, doubled=2)


def test_values_that_are_not_finite_are_missing_and_their_channels_named():
    gapless, one = Gapless(CHANNELS), packet(0, 2)
    bins = one.bins.astype(np.float64)
    bins[0, 1], bins[1, 3], bins[1, 4] = np.nan, -np.inf, 1e300  # the last is none of float32
    found = taken(gapless, replace(one, bins=bins))
    assert np.isnan(found).sum() == 3 and np.isnan(found[[0, 1, 1], [1, 3, 4]]).all()
    assert gapless.silent.tolist() == [False, False, False, True, True, False]
    assert gapless.counts == Counts(used=2, missing_values=3)
    taken(gapless, packet(2))
    assert not gapless.silent.any()
    assert np.isnan(bins[0, 1])  # the source's own array is left as it was


def test_another_channel_count_is_left_out():
    gapless = Gapless(CHANNELS)
    found = taken(gapless, packet(0), packet(1, 2, CHANNELS + 1), packet(3))
    assert np.isnan(found[1:3]).all() and len(found) == 4
    assert gapless.counts == Counts(used=2, lost=2, unfit=2)


def test_one_packet_with_a_wild_number_is_left_out():
    gapless = Gapless(CHANNELS)
    found = taken(gapless, packet(100), packet(2**60, 2), packet(0), packet(101))
    np.testing.assert_array_equal(found, bins_of([100, 101]))
    assert gapless.counts == Counts(used=2, strayed=3)


@pytest.mark.parametrize("start", [0, 100 + MAX_JUMP + 3])
def test_a_source_that_counts_anew_begins_another_sentence(start):
    gapless = Gapless(CHANNELS)
    taken(gapless, packet(100, 2), packet(start))
    following = packet(start + 1, 2)
    assert gapless.take(following).jumped
    np.testing.assert_array_equal(taken(gapless, following), following.bins)
    assert gapless.counts == Counts(used=4, strayed=1, jumps=1)


def test_the_longest_gap_within_a_sentence():
    gapless = Gapless(CHANNELS)
    found = taken(gapless, packet(0), packet(1 + MAX_JUMP))
    assert len(found) == 2 + MAX_JUMP and gapless.counts.lost == MAX_JUMP


def test_a_sentence_begins_with_any_number():
    gapless = Gapless(CHANNELS)
    taken(gapless, packet(500))
    gapless.restart()
    np.testing.assert_array_equal(taken(gapless, packet(3)), bins_of([3]))


SENT = st.tuples(st.integers(-12, 12), st.integers(0, 4), st.booleans())


@settings(max_examples=60, deadline=None)
@given(st.lists(SENT, max_size=40))
def test_every_bin_is_accounted_for(sent):
    """Against the rules, applied bin by bin to a table of what came when."""
    gapless, due, counts = Gapless(CHANNELS), None, Counts()
    lost, found, wanted = set(), [np.zeros((0, CHANNELS), np.float32)], []
    for step, many, fits in sent:
        start = 1000 if due is None else due + step
        found.append(gapless.take(packet(start, many, CHANNELS + (not fits))).bins)
        if not fits:
            counts.unfit += many
            continue
        due = start if due is None else due
        for number in range(due, start):
            lost.add(number)
            wanted.append(None)
        counts.lost += max(0, start - due)
        due = max(due, start)
        for number in range(start, start + many):
            if number == due:
                wanted.append(number)
                counts.used, due = counts.used + 1, due + 1
            elif number in lost:
                lost.remove(number)
                counts.late += 1
            else:
                counts.doubled += 1
    assert gapless.counts == counts
    assert counts.received == sum(many for _, many, _ in sent)
    rows = np.concatenate(found)
    assert len(rows) == len(wanted) == counts.used + counts.lost
    for row, number in zip(rows, wanted, strict=True):
        sent = np.full(CHANNELS, np.nan) if number is None else bins_of([number])[0]
        np.testing.assert_array_equal(row, sent)
