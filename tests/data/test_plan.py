import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modessm_jax.data.plan import BatchPlan, padded_lengths

bins_of_trials = st.lists(st.integers(3, 200), min_size=1, max_size=60).map(np.array)


def plan(bins: np.ndarray, **changes) -> BatchPlan:
    sessions = np.arange(len(bins)) % 3
    options = {"batch_size": 8, "buckets": 4, "seed": 5, "multiple": 4} | changes
    return BatchPlan(bins, sessions, **options)


@settings(max_examples=40, deadline=None)
@given(bins_of_trials, st.integers(1, 9), st.integers(1, 5), st.integers(0, 4))
def test_every_trial_is_in_every_epoch_and_padding_holds_it(bins, batch_size, buckets, epoch):
    one = plan(bins, batch_size=batch_size, buckets=buckets)
    start = epoch * one.steps_per_epoch
    batches = [one[start + step] for step in range(one.steps_per_epoch)]
    rows = np.concatenate([trials for _, trials in batches])
    assert set(rows) == set(range(len(bins)))
    assert len(rows) - len(bins) < batch_size
    assert {len(trials) for _, trials in batches} == {batch_size}
    assert len(one.lengths) <= buckets
    for length, trials in batches:
        assert length in one.lengths
        assert length % 4 == 0
        assert bins[trials].max() <= length
        if len(bins) >= batch_size:
            assert len(set(trials)) == batch_size


@settings(max_examples=20, deadline=None)
@given(bins_of_trials, st.lists(st.integers(0, 10**12), min_size=1, max_size=5))
def test_a_batch_depends_on_seed_and_step_alone(bins, steps):
    walked, fresh = plan(bins), plan(bins)
    for step in range(7):
        walked[step]
    for step in steps:
        for (length, trials), (again, trials_again) in [
            (walked[step], walked[step]),
            (walked[step], fresh[step]),
        ]:
            assert length == again
            np.testing.assert_array_equal(trials, trials_again)


def test_epochs_and_seeds_differ():
    bins = np.full(64, 10)
    first = [tuple(plan(bins)[step][1]) for step in range(16)]
    other = [tuple(plan(bins, seed=6)[step][1]) for step in range(16)]
    assert len(set(first)) == 16
    assert not set(first) & set(other)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=9).map(np.array),
    st.integers(1, 4),
    st.integers(1, 3),
)
def test_padded_lengths_waste_least(bins, limit, smallest):
    lengths = padded_lengths(bins, limit, 1, smallest)

    def cost(edges: tuple[int, ...]) -> float:
        """Bins after padding; infinite if a group is too small for more than one."""
        group = np.searchsorted(edges, bins)
        counts = np.bincount(group, minlength=len(edges))
        if len(edges) > 1 and counts.min() < smallest:
            return np.inf
        return np.array(edges)[group].sum()

    distinct = sorted(set(bins.tolist()))
    shorter = distinct[:-1]
    choices = [
        (*[one for place, one in enumerate(shorter) if chosen >> place & 1], distinct[-1])
        for chosen in range(1 << len(shorter))
    ]
    assert len(lengths) <= limit
    assert lengths[-1] == bins.max()
    assert cost(lengths) == min(cost(edges) for edges in choices if len(edges) <= limit)


def padding_fraction(one: BatchPlan, bins: np.ndarray) -> float:
    """The fraction of the bins of an epoch's batches that is padding."""
    batches = [one[step] for step in range(one.steps_per_epoch)]
    real = sum(int(bins[trials].sum()) for _, trials in batches)
    return 1 - real / sum(length * len(trials) for length, trials in batches)


def test_more_lengths_pad_less():
    bins = np.random.default_rng(0).integers(30, 500, 400)
    fractions = [padding_fraction(plan(bins, buckets=n), bins) for n in (1, 2, 4, 8)]
    assert fractions == sorted(fractions, reverse=True)
    assert fractions[0] == pytest.approx(1 - bins.mean() / (-(-bins.max() // 4) * 4), abs=0.01)
    assert fractions[3] < 0.1


def test_session_balance_draws_few_sessions_equally_often():
    sessions = np.repeat([4, 7, 9, 11], [50, 5, 3, 2])
    bins = np.arange(60) + 5
    one = BatchPlan(
        bins, sessions, batch_size=8, buckets=3, seed=0, multiple=10, sessions_per_batch=2
    )
    drawn = np.zeros(12)
    for step in range(400):
        length, trials = one[step]
        assert length in one.lengths
        assert bins[trials].max() <= length
        ids, counts = np.unique(sessions[trials], return_counts=True)
        assert counts.tolist() == [4, 4]
        drawn[ids] += 1
    np.testing.assert_allclose(drawn[[4, 7, 9, 11]] / 400, 0.5, atol=0.1)
    assert len(one.lengths) <= 3
    np.testing.assert_array_equal(one[77][1], one[77][1])


def test_fingerprint_tells_plans_apart():
    bins = np.arange(30) + 3
    same, again = plan(bins), plan(bins)
    assert same.fingerprint == again.fingerprint
    others = [plan(bins, seed=1), plan(bins, batch_size=4), plan(bins, buckets=1), plan(bins[1:])]
    assert len({same.fingerprint, *(other.fingerprint for other in others)}) == 5


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"batch_size": 0}, "batch_size is 0"),
        ({"buckets": 0}, "buckets is 0"),
        ({"multiple": 0}, "multiple is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"sessions_per_batch": 3}, "does not divide batch_size 8"),
        ({"sessions_per_batch": 4}, "only 3 sessions have training trials"),
        ({"bins": np.zeros(0, int)}, "the number of trials is 0"),
    ],
)
def test_sizes_that_make_no_sense_are_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        plan(**{"bins": np.full(9, 5)} | changes)


def test_negative_steps_are_refused():
    with pytest.raises(IndexError, match="-1"):
        plan(np.full(9, 5))[-1]
