"""A batch steps the streams that have bins, and begins some anew; the others stay as they were."""

from typing import Any

import jax
import numpy as np
import pytest

from modessm_jax.streaming.head import Head
from modessm_jax.streaming.step import BatchStep
from tests.streaming.tiny import CHANNELS, run_of, trial


def test_a_model_of_whole_trials_is_refused() -> None:
    run = run_of("gru")
    whole = run.functional._replace(steps=None)
    with pytest.raises(ValueError, match=r"cannot stream: train one with --config.model.causal"):
        BatchStep(whole, Head(whole, run.params, "ctc", 1), run.params, CHANNELS, 1)


def test_streams_that_wait_or_go_on_stay_as_they_were() -> None:
    run = run_of("gru")
    head = Head(run.functional, run.params, "ctc", 1)
    step = BatchStep(run.functional, head, run.params, CHANNELS, 2)
    assert step.bins == step.stride == 4 and step.late == 8
    bins, four = np.stack([trial(4, 1), trial(4, 2)]), np.full(2, 4, np.int32)
    both, first, second = (np.array(rows) for rows in ([1, 1], [1, 0], [0, 1]))
    fresh = jax.device_get(step.start())

    def stepped(state: Any, active: np.ndarray) -> Any:
        return step(run.params, state, bins, four, active.astype(bool), np.zeros(2, np.int32))[0]

    def rows(state: Any, row: int) -> list[np.ndarray]:
        return [np.array(leaf[row]) for leaf in jax.tree.leaves(jax.device_get(state))]

    state = stepped(step.start(), both)
    one, other = rows(state, 0), rows(state, 1)
    assert any((a != b).any() for a, b in zip(one, rows(fresh, 0), strict=True))
    state = stepped(state, first)
    np.testing.assert_equal(rows(state, 1), other)
    assert any((a != b).any() for a, b in zip(rows(state, 0), one, strict=True))
    one = rows(state, 0)
    state = step.restart(state, second.astype(bool))
    np.testing.assert_equal(rows(state, 0), one)
    np.testing.assert_equal(rows(state, 1), rows(fresh, 1))
