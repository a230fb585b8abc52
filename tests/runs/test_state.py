import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modessm_jax.runs.state import averaged, create_state, evaluation_params
from modessm_jax.runtime.mesh import data_mesh
from tests.toy import initial_params, plan


def make(params, ema):
    return create_state(params, plan(params=params).optimizer, data_mesh(), ema=ema)


def test_donating_the_state_leaves_the_source_and_the_average_alone():
    params = initial_params()
    state = make(params, ema=True)
    jax.jit(lambda s: jax.tree.map(lambda x: x + 1, s), donate_argnums=0)(state)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state.params))
    assert np.isfinite(params["encoder"]["kernel"]).all()


def test_state_lives_on_every_device_and_averages_only_if_asked():
    state = make(initial_params(), ema=False)
    assert state.ema is None
    assert evaluation_params(state) is state.params
    assert {len(leaf.sharding.device_set) for leaf in jax.tree.leaves(state)} == {4}
    assert all(leaf.sharding.is_fully_replicated for leaf in jax.tree.leaves(state))
    averaging = make(initial_params(), ema=True)
    assert evaluation_params(averaging) is averaging.ema


def test_average_warms_up_and_then_decays():
    ema, params = {"a": jnp.zeros(())}, {"a": jnp.ones(())}
    early = averaged(ema, params, jnp.asarray(1), 0.99)["a"]
    late = averaged(ema, params, jnp.asarray(100_000), 0.99)["a"]
    np.testing.assert_allclose(early, 1 - 2 / 11, rtol=1e-6)
    np.testing.assert_allclose(late, 0.01, rtol=1e-4)


def test_refuses_half_precision_parameters():
    params = initial_params()
    params["phoneme"]["kernel"] = params["phoneme"]["kernel"].astype(jnp.bfloat16)
    with pytest.raises(ValueError, match="phoneme/kernel is bfloat16"):
        make(params, ema=False)
