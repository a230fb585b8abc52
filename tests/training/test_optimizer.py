from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from modessm_jax.training.optimizer import decayed, make_optimizer
from tests.training.toy import OPTIMIZER, initial_params


@pytest.mark.parametrize("warmup", [0, 1, 7])
def test_schedule_starts_above_zero_peaks_after_the_warmup_and_ends_at_the_last_update(warmup):
    steps = 23
    _, schedule = make_optimizer(**{**OPTIMIZER, "warmup_steps": warmup}, steps=steps)
    rates = np.array([schedule(step) for step in range(steps)])
    np.testing.assert_allclose(rates[0], 1e-2 / (warmup + 1), rtol=1e-6)
    np.testing.assert_allclose(rates[warmup], 1e-2, rtol=1e-6)
    np.testing.assert_allclose(rates[-1], 1e-4, rtol=1e-6)
    assert np.all(np.diff(rates[: warmup + 1]) > 0)
    assert np.all(np.diff(rates[warmup:]) < 0)


def test_decay_spares_vectors_gains_and_shifts():
    params = {
        "convolution": {"kernel": jnp.ones((3, 1, 4)), "bias": jnp.ones(4)},
        "attention": {"query_bias": jnp.ones((2, 4)), "out": [jnp.ones((4, 4))]},
        "norm": {"scale": jnp.ones(4)},
        "mask": {"embedding": jnp.ones((1, 4))},
        "session": {"weight": jnp.ones((3, 4, 4)), "offset": jnp.ones((3, 4))},
        "temperature": jnp.ones(()),
    }
    assert decayed(params) == {
        "convolution": {"kernel": True, "bias": False},
        "attention": {"query_bias": False, "out": [True]},
        "norm": {"scale": False},
        "mask": {"embedding": True},
        "session": {"weight": True, "offset": False},
        "temperature": False,
    }


def test_only_decay_moves_parameters_without_gradient():
    params = jax.tree.map(jnp.ones_like, initial_params())
    optimizer, schedule = make_optimizer(**OPTIMIZER, steps=10)
    gradient = jax.tree.map(jnp.zeros_like, params)
    updates, _ = optimizer.update(gradient, optimizer.init(params), params)
    moved: Any = optax.apply_updates(params, updates)
    shrunk = 1.0 - float(np.asarray(schedule(0))) * OPTIMIZER["weight_decay"]
    np.testing.assert_allclose(moved["encoder"]["kernel"], shrunk, rtol=1e-6)
    np.testing.assert_array_equal(moved["encoder"]["bias"], 1.0)
    np.testing.assert_array_equal(moved["session"]["offset"], 1.0)


def test_the_gradient_is_clipped_before_the_moments_see_it():
    params = {"kernel": jnp.zeros((2, 2))}
    optimizer, _ = make_optimizer(**OPTIMIZER, steps=10)
    gradient = {"kernel": jnp.full((2, 2), 50.0)}
    _, state = optimizer.update(gradient, optimizer.init(params), params)
    moment = optax.tree_utils.tree_get(state, "mu")["kernel"]
    np.testing.assert_allclose(optax.tree.norm(moment), 0.1 * 1.0, rtol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"warmup_steps": 9}, "warmup_steps is 9"),
        ({"end_lr": 1.0}, "end_lr 1.0"),
        ({"peak_lr": 0.0, "end_lr": 0.0}, "peak_lr is 0.0"),
        ({"clip_norm": 0.0}, "clip_norm"),
    ],
)
def test_refuses_impossible_numbers(change, message):
    with pytest.raises(ValueError, match=message):
        make_optimizer(**{**OPTIMIZER, **change}, steps=10)
