"""Sessions are names: recordings may have other sessions than a model, and none is confused."""

import jax.numpy as jnp
import numpy as np
import pytest

from modessm_jax.runs.load import trained_sessions
from modessm_jax.runs.sessions import adapters, check_rule, mean_of, nearest, with_mean

KNOWN = {"t15.2023.08.11": 0, "t15.2023.08.13": 2, "t15.2024.03.01": 1}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("t15.2023.08.12", "t15.2023.08.11"),  # as far from the 13th: the earlier
        ("t15.2023.08.14", "t15.2023.08.13"),
        ("t15.2022.01.01", "t15.2023.08.11"),
        ("t15.2026.01.01", "t15.2024.03.01"),
        ("other.2024.02.28", "t15.2024.03.01"),
        ("t15.2023.13.41", "t15.2023.08.13"),  # no date: the one before in alphabetical order
        ("a", "t15.2023.08.11"),  # none before
        ("z", "t15.2024.03.01"),
    ],
)
def test_nearest_in_time(name: str, expected: str) -> None:
    assert nearest(name, KNOWN) == expected


def test_each_session_has_the_adapter_that_is_said(caplog: pytest.LogCaptureFixture) -> None:
    names = ["t15.2023.08.13", "renamed", "t15.2024.02.28"]
    renamed = {"renamed": "t15.2024.03.01"}
    found, lacking = adapters(names, KNOWN, renamed=renamed)
    assert (found, lacking) == ({"t15.2023.08.13": 2, "renamed": 1}, ["t15.2024.02.28"])
    assert "session renamed is read with the adapter of t15.2024.03.01" in caplog.text
    found, lacking = adapters(names, KNOWN, renamed=renamed, untrained="nearest")
    assert (found["t15.2024.02.28"], lacking) == (1, [])
    assert "t15.2024.02.28 is read with the adapter of t15.2024.03.01" in caplog.text
    found, _ = adapters(names, KNOWN, renamed=renamed, untrained="mean")
    assert found["t15.2024.02.28"] == mean_of(KNOWN) == 3
    assert "t15.2024.02.28 is read with the adapter of the mean of all" in caplog.text


def test_the_mean_is_of_what_was_trained() -> None:
    params = {
        "adaptation": {"weight": jnp.arange(12.0).reshape(4, 3), "offset": jnp.ones((4, 2))},
        "head": jnp.zeros(2),
    }
    trained = {"a": 0, "c": 2}  # of 0 to 3; the others were never trained, as in format 3
    found = with_mean(params, trained)
    np.testing.assert_array_equal(found["adaptation"]["weight"][mean_of(trained)], [3.0, 4.0, 5.0])
    np.testing.assert_array_equal(
        found["adaptation"]["weight"][:3], params["adaptation"]["weight"][:3]
    )
    assert found["adaptation"]["offset"].shape == (4, 2)
    assert with_mean({"head": jnp.zeros(2)}, trained).keys() == {"head"}


def test_before_format_4_folders_without_training_had_adapters_too() -> None:
    dataset = {"sessions": ["a", "b", "c"], "trials": {"train": {"a": "", "c": ""}, "val": {}}}
    assert trained_sessions(dataset) == {"a": 0, "c": 2}
    assert trained_sessions(dataset | {"folders": ["a", "b", "c", "d"]}) == {"a": 0, "b": 1, "c": 2}


def test_a_rule_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match=r"untrained_sessions is 'guess'; choose one of refuse,"):
        check_rule("data.untrained_sessions", "guess")
