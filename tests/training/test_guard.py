"""The guard on made-up courses of loss and gradient norm."""

import dataclasses
import json
import math

import numpy as np
import pytest

from configs import common
from modessm_jax.runs.history import History
from modessm_jax.training.guard import DIVERGENCE, NONFINITE, Guard, level
from modessm_jax.training.settings import GuardSettings

OFF = GuardSettings(**common.guard())
ON = dataclasses.replace(OFF, divergence=True)


def watch(losses, norms=None, settings=ON, history=None):
    """The first rollback in a course; a loss of NaN stands for a step that was skipped."""
    history = History() if history is None else history
    guard = Guard(settings, history)
    norms = np.ones(len(losses)) if norms is None else norms
    for step, (loss, norm) in enumerate(zip(losses, norms, strict=True), start=1):
        skipped = float(not math.isfinite(loss))
        found = guard.judge(step, {"skipped": skipped, "loss": loss, "gradient_norm": norm})
        if found is not None:
            return found
    return None


def alarm(losses, norms=None):
    found = watch(losses, norms)
    assert found is not None
    return found


def learning(seed, steps=2000, noise=0.2):
    """As a CTC model learns: to the plateau, a while on it, then down a power law; with spikes."""
    random = np.random.default_rng(seed)
    time = np.arange(steps)
    base = 0.7 + 3.0 * np.exp(-time / 20) - 0.65 * np.clip((time - 150) / 300, 0, 1) ** 0.5
    spikes = np.where(random.random(steps) < 0.01, random.uniform(2, 20, steps), 1.0)
    return base * np.exp(noise * random.normal(size=steps)) * spikes


@pytest.mark.parametrize("noise", [0.02, 0.2, 0.6])
def test_is_silent_while_a_model_learns(noise):
    for seed in range(5):
        assert watch(learning(seed, noise=noise)) is None


def test_is_silent_about_a_gradient_that_grows_a_thousandfold():
    norms = np.geomspace(0.01, 10.0, 500)
    assert watch(np.geomspace(1.0, 0.5, 500), norms) is None


def test_a_loss_that_stays_high_is_found_soon_and_dated():
    losses = learning(0)
    losses[1000:] = 0.8
    cause, found, sound = alarm(losses)
    assert cause == DIVERGENCE and 1000 < found <= 1016 and 990 <= sound <= 1000


def test_a_slow_rise_is_found_too():
    losses = learning(1)
    losses[1000:] *= np.geomspace(1.0, 20.0, 1000)
    assert 1000 < alarm(losses).found < 1700


def test_a_gradient_that_grew_first_tells_since_when():
    losses, norms = learning(2), np.ones(2000)
    losses[1000:], norms[970:] = 0.8, 100.0
    assert alarm(losses, norms).sound == 970


def test_off_by_default():
    assert watch(np.geomspace(1.0, 1e6, 500), settings=OFF) is None


def test_knows_after_a_restart_what_it_knew():
    losses = learning(0)
    losses[1000:] = 0.8
    history = History()
    assert watch(losses[:1005], history=history) is None
    guard = Guard(ON, History.from_json(history.to_json()))
    steps = range(1006, 1100)
    found = [guard.judge(s, {"skipped": 0.0, "loss": 0.8, "gradient_norm": 1.0}) for s in steps]
    first = next(rollback for rollback in found if rollback is not None)
    assert first == watch(losses)
    assert json.loads(history.to_json())["trend"] == history.trend


def test_another_stage_is_another_level():
    history = History()
    guard = Guard(ON, history)
    for step in range(200):
        loss = 0.1 if step < 100 else 5.0
        if step == 100:
            guard.begin_stage()
        assert guard.judge(step, {"skipped": 0.0, "loss": loss, "gradient_norm": 1.0}) is None


def test_skipped_steps_count_until_one_is_made():
    budget = dataclasses.replace(OFF, nonfinite_budget=2)
    history = History()
    assert watch([1.0, math.nan, math.nan, 1.0, math.inf, math.nan], settings=budget) is None
    found = watch([1.0, math.nan, 1.0, *[math.nan] * 3], settings=budget, history=history)
    assert found == (NONFINITE, 6, 6)
    assert (history.skipped, history.skipped_in_a_row) == (4, 3)


def test_level_is_that_of_a_normal_sample_whatever_a_tenth_of_it_is():
    sample = np.random.default_rng(0).normal(3.0, 0.5, 2000)
    sample[::10] = 1e9
    median, deviation = level(sample)
    assert median == pytest.approx(3.0, abs=0.1) and deviation == pytest.approx(0.5, rel=0.2)
