import math

import pytest

from modessm_jax.runs.history import History


def test_survives_json_exactly():
    history = History(infeasible=["a"], seconds={"step": 0.1 + 0.2})
    history.add({"loss": 1 / 3, "infeasible": 2})
    history.evaluated(3, {"per": 0.1 * 3}, "per")
    assert History.from_json(history.to_json()) == history


def test_window_averages_figures_and_sums_counts():
    history = History()
    history.add({"loss": 1.0, "infeasible": 2})
    history.add({"loss": 2.0, "infeasible": 1})
    assert history.drain(counts=("infeasible",)) == {"loss": 1.5, "infeasible": 3.0}
    assert history.window == {} and history.window_steps == 0


def test_a_skipped_step_counts_and_adds_nothing_else():
    history = History()
    history.add({"loss": 1.0, "valid": 8.0, "skipped": 0.0})
    history.add({"loss": math.nan, "valid": 8.0, "skipped": 1.0})
    means = history.drain(counts=("skipped", "valid"))
    assert means == {"loss": 1.0, "valid": 8.0, "skipped": 1.0}
    history.add({"loss": math.nan, "valid": 8.0, "skipped": 1.0})
    assert history.drain(counts=("skipped", "valid")) == {"skipped": 1.0}


def test_the_lowest_finite_evaluation_is_best_and_the_last_of_equals():
    history = History()
    rates = [math.nan, 0.5, 0.4, 0.4, 0.6]
    better = [history.evaluated(step, {"per": rate}, "per") for step, rate in enumerate(rates)]
    assert better == [False, True, True, True, False]
    assert history.best == {"step": 3, "per": 0.4}


def test_each_stage_has_a_best_of_its_own():
    history = History(stages=[{"name": "first", "begun": 0}])
    assert history.evaluated(4, {"per": 0.2}, "per")
    history.stages.append({"name": "second", "begun": 4})
    assert history.evaluated(6, {"per": 0.9}, "per")  # lacks nothing that this stage trains
    assert not history.evaluated(8, {"per": 1.0}, "per")
    assert history.best == {"step": 6, "per": 0.9}


def test_selecting_by_what_is_not_measured_is_refused():
    with pytest.raises(ValueError, match=r"select_by is 'per'.*\['loss'\]"):
        History().evaluated(1, {"loss": 1.0}, "per")
