import numpy as np
import pytest

from modessm_jax.simulate import electrodes


def alignment(one, two):
    return np.corrcoef(one.tuning.ravel(), two.tuning.ravel())[0, 1]


def test_arrays_differ_in_how_strongly_they_follow_speech():
    arrays = np.abs(electrodes.implant(0, 2048).tuning).mean(axis=1).reshape(4, 512).mean(axis=1)
    np.testing.assert_allclose(arrays / arrays[0], list(electrodes.ARRAYS.values()), rtol=0.15)


def test_tuning_is_lost_with_time_but_not_its_size():
    first = electrodes.implant(0, 256)
    week = electrodes.drifted(first, 1.0, 0, 1, tuning_loss=0.08)
    months = first
    for session in range(1, 13):
        months = electrodes.drifted(months, 1.0, 0, session, tuning_loss=0.08)
    assert alignment(first, week) > 0.85
    assert 0.2 < alignment(first, months) < 0.55
    assert np.std(months.tuning) == pytest.approx(np.std(first.tuning), rel=0.15)
    assert np.abs(months.log_rate - first.log_rate).mean() > 0.1


def test_some_electrodes_are_dead_and_some_noisy():
    implanted = electrodes.implant(3, 2048)
    assert 10 < implanted.dead.sum() < 80 and 10 < implanted.noisy.sum() < 80
    assert not np.any(implanted.dead & implanted.noisy)


@pytest.mark.parametrize("count", [0, 3, 66])
def test_four_arrays_must_share_the_electrodes(count):
    with pytest.raises(ValueError, match="multiple of 4"):
        electrodes.implant(0, count)
