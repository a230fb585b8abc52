import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from modessm_jax.training.optimizer import decayed, make_optimizer, make_schedule
from tests.toy import initial_params

RATES: dict[str, Any] = dict(peak_lr=1e-2, end_lr=1e-4, warmup_steps=2)
ADAMW: dict[str, Any] = dict(clip_norm=1.0, weight_decay=1e-2, b1=0.9, b2=0.99, eps=1e-8)


@pytest.mark.parametrize("warmup", [0, 1, 7])
def test_schedule_starts_above_zero_peaks_after_the_warmup_and_ends_at_the_last_update(warmup):
    steps = 23
    schedule = make_schedule(**{**RATES, "warmup_steps": warmup}, steps=steps)
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
        "film": {"scale": jnp.ones((2, 4)), "shift": jnp.ones((2, 4))},
        "mask": {"embedding": jnp.ones((1, 4))},
        "session": {"weight": jnp.ones((3, 4, 4)), "offset": jnp.ones((3, 4))},
        "temperature": jnp.ones(()),
    }
    assert decayed(params) == {
        "convolution": {"kernel": True, "bias": False},
        "attention": {"query_bias": False, "out": [True]},
        "norm": {"scale": False},
        "film": {"scale": False, "shift": False},
        "mask": {"embedding": True},
        "session": {"weight": True, "offset": False},
        "temperature": False,
    }


@pytest.mark.slow
def test_only_decay_moves_parameters_without_gradient():
    params = jax.tree.map(jnp.ones_like, initial_params())
    optimizer = make_optimizer(**ADAMW)
    gradient = jax.tree.map(jnp.zeros_like, params)
    updates, _ = optimizer.update(gradient, optimizer.init(params), params)
    moved: Any = optax.apply_updates(params, updates)
    shrunk = 1.0 - ADAMW["weight_decay"]
    np.testing.assert_allclose(moved["encoder"]["kernel"], shrunk, rtol=1e-6)
    np.testing.assert_array_equal(moved["encoder"]["bias"], 1.0)
    np.testing.assert_array_equal(moved["session"]["offset"], 1.0)


def test_the_gradient_is_clipped_before_the_moments_see_it():
    params = {"kernel": jnp.zeros((2, 2))}
    optimizer = make_optimizer(**ADAMW)
    gradient = {"kernel": jnp.full((2, 2), 50.0)}
    _, state = optimizer.update(gradient, optimizer.init(params), params)
    moment = optax.tree_utils.tree_get(state, "mu")["kernel"]
    np.testing.assert_allclose(optax.tree.norm(moment), 0.1 * 1.0, rtol=1e-5)


def test_each_group_is_adamw_of_its_own_age_and_a_resting_one_is_left_alone():
    params: dict[str, Any] = initial_params()
    names = {name: "late" if name == "phoneme" else "early" for name in params}
    groups = {name: jax.tree.map(lambda _, n=names[name]: n, params[name]) for name in params}
    alone: Any = make_optimizer(**ADAMW, groups=groups, active={"early"})
    both = make_optimizer(**ADAMW, groups=groups, active={"early", "late"})
    state: Any = alone.init(params)
    assert jax.tree.structure(state) == jax.tree.structure(both.init(params))
    reference = optax.adamw(1.0, 0.9, 0.99, 1e-8, weight_decay=1e-2, mask=decayed)
    of: dict[str, Any] = {name: reference.init(params[name]) for name in params}
    for number, optimizer in enumerate((alone, alone, both, both)):
        # Small enough never to be clipped.
        gradient: Any = jax.tree.map(lambda x, n=number: 1e-3 * jnp.cos(7 * x + n), params)
        if optimizer is alone:
            gradient["phoneme"] = jax.tree.map(jnp.zeros_like, gradient["phoneme"])
        updates: Any
        updates, state = optimizer.update(gradient, state, params)
        for name in params:
            if optimizer is alone and names[name] == "late":
                assert not np.any(updates[name]["kernel"])
                continue
            expected, of[name] = reference.update(gradient[name], of[name], params[name])
            for a, b in zip(jax.tree.leaves(updates[name]), jax.tree.leaves(expected), strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-9)


def test_groups_are_taken_in_an_order_that_every_process_has():
    params = {name: jnp.zeros(2) for name in ("late", "early", "middle", "after", "before")}
    groups = {name: name for name in params}
    state: Any = make_optimizer(**ADAMW, groups=groups).init(params)
    assert list(state[1].inner_states) == sorted(params)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"warmup_steps": 9}, "warmup_steps is 9"),
        ({"end_lr": 1.0}, r"end_lr 1\.0"),
        ({"peak_lr": 0.0, "end_lr": 0.0}, r"peak_lr is 0\.0"),
    ],
)
def test_refuses_impossible_rates(change, message):
    with pytest.raises(ValueError, match=message):
        make_schedule(**{**RATES, **change}, steps=10)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("clip_norm", (0.0, -1.0, math.nan)),
        ("eps", (0.0, math.nan)),
        ("b1", (1.0, -0.1, math.nan)),
        ("b2", (1.5, math.nan)),
        ("weight_decay", (-1e-3, math.nan)),
    ],
)
def test_refuses_numbers_that_adamw_has_no_use_for(name, values):
    for value in values:
        with pytest.raises(ValueError, match=rf"optimizer\.{name} is {value}"):
            make_optimizer(**{**ADAMW, name: value})


def session_model() -> dict[str, Any]:
    return {"adaptation": {"weight": jnp.ones((2, 3, 3))}, "head": {"kernel": jnp.ones((3, 3))}}


def test_session_layers_have_a_rate_of_their_own():
    params = session_model()
    gradient = jax.tree.map(lambda x: 0.01 * x, params)
    moved: dict[float, Any] = {}
    for rate in (1.0, 0.25):
        optimizer = make_optimizer(**ADAMW, session_rate=rate)
        moved[rate], _ = optimizer.update(gradient, optimizer.init(params), params)
    np.testing.assert_array_equal(moved[0.25]["head"]["kernel"], moved[1.0]["head"]["kernel"])
    np.testing.assert_allclose(
        moved[0.25]["adaptation"]["weight"], 0.25 * moved[1.0]["adaptation"]["weight"], rtol=1e-6
    )
    with pytest.raises(ValueError, match=r"optimizer\.session_rate is 0"):
        make_optimizer(**ADAMW, session_rate=0.0)


def test_session_layers_need_not_decay():
    params = session_model()
    gradient = jax.tree.map(jnp.zeros_like, params)
    optimizer = make_optimizer(**ADAMW, decay_sessions=False)
    found: Any = optimizer.update(gradient, optimizer.init(params), params)
    updates = found[0]
    np.testing.assert_array_equal(updates["adaptation"]["weight"], 0.0)
    np.testing.assert_allclose(updates["head"]["kernel"], -ADAMW["weight_decay"], rtol=1e-6)
