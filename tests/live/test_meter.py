"""The figures of the meter are those of the packets it still holds."""

import numpy as np
import pytest

from modessm_jax.live.meter import DEADLINE, Figures, Meter


def test_nothing_was_measured():
    assert Meter().figures() == Figures(0.0, 0.0, 0.0, 0.0, 0)


@pytest.mark.parametrize("packets", [10, 3000, 4500])
def test_figures(packets):
    meter, random = Meter(), np.random.default_rng(packets)
    late = random.uniform(0.001, 0.1, packets)
    for number, seconds in enumerate(late):
        arrived = 100 + 0.02 * number
        meter.add(arrived, arrived, arrived + seconds)
    figures, kept = meter.figures(), late[-3000:]
    assert figures.p50 == pytest.approx(np.median(kept))
    assert figures.p99 == pytest.approx(np.quantile(kept, 0.99))
    assert figures.largest == pytest.approx(kept.max())
    assert figures.missed == (late > DEADLINE).sum()
    assert figures.load == pytest.approx(kept.sum() / (0.02 * (len(kept) - 1) + kept[-1]))


def test_a_packet_that_waited_is_late_and_no_load():
    meter = Meter()
    meter.add(0.0, 1.0, 1.01)
    meter.add(1.0, 2.0, 2.01)
    assert meter.figures().p50 == pytest.approx(1.01)
    assert meter.figures().load == pytest.approx(0.02 / 1.01)
    assert meter.figures().missed == 2
