"""The simulator against one real trial of participant T12 (20 ms bins, normalised by block)."""

import numpy as np
import pytest

from modessm_jax.simulate import comparison

# How far medians over channels, and quantiles over pairs of channels, may lie from the real trial.
TOLERANCE = {
    "bins at minimum, median": 0.06,
    "skewness, median": 0.25,
    "autocorrelation, lag 1": 0.04,
    "autocorrelation, lag 5": 0.04,
    "autocorrelation, lag 10": 0.04,
    "pair correlation, 5 %": 0.03,
    "pair correlation, median": 0.03,
    "pair correlation, 95 %": 0.04,
}


@pytest.fixture(scope="module")
def real(shared_data):
    return np.load(shared_data / "recorded/t12_trial_channels_by_bins.npy")


@pytest.fixture(scope="module")
def both(real):
    return comparison.describe(real), comparison.describe(comparison.simulated_like(real, seed=0))


def test_the_real_trial_holds_128_channels_of_each_kind(real):
    kinds = comparison.split_kinds(real)
    assert {kind: len(part) for kind, part in kinds.items()} == {"crossings": 128, "power": 128}


@pytest.mark.parametrize("name", TOLERANCE)
@pytest.mark.parametrize("kind", ["crossings", "power"])
def test_the_simulation_is_like_the_recording(both, kind, name):
    recorded, simulated = (side[kind].summary()[name] for side in both)
    assert simulated == pytest.approx(recorded, abs=TOLERANCE[name])


def test_table_and_picture_show_both(both, tmp_path):
    lines = comparison.table(*both).splitlines()
    assert len(lines) == 1 + 2 * len(TOLERANCE)
    picture = tmp_path / "comparison.png"
    recorded, simulated = both
    comparison.draw(recorded, simulated, picture)
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_statistics_of_known_noise():
    rng = np.random.default_rng(0)
    white = rng.standard_normal((40, 4000)).astype(np.float32)
    summary = comparison.statistics(white).summary()
    assert summary["autocorrelation, lag 1"] == pytest.approx(0, abs=0.02)
    assert summary["skewness, median"] == pytest.approx(0, abs=0.05)
    assert summary["pair correlation, 95 %"] == pytest.approx(1.645 / np.sqrt(4000), abs=0.004)
    smooth = (white[:, 1:] + white[:, :-1]).astype(np.float32)
    assert comparison.statistics(smooth).summary()["autocorrelation, lag 1"] == pytest.approx(
        0.5, abs=0.02
    )
    counts = rng.poisson(0.5, (10, 4000)).astype(np.float32)
    none = comparison.statistics(counts).summary()["bins at minimum, median"]
    assert none == pytest.approx(np.exp(-0.5), abs=0.02)
