"""What a checkpoint holds is read whole, by its model and by no other."""

import jax.numpy as jnp
import optax
import pytest
from grain._src.core import sharding

from modessm_jax.training.checkpoints import CheckpointError, Checkpoints, load_weights
from modessm_jax.training.history import History
from modessm_jax.training.mesh import data_mesh
from modessm_jax.training.state import create_state
from tests.training.test_checkpoints import (
    assert_equal_trees,
    numbers,
    restore,
    save_three,
    state_at,
)
from tests.training.toy import initial_params


def test_the_number_of_processes_may_change(tmp_path, monkeypatch):
    # What Grain's own handler of iterators goes by.
    monkeypatch.setattr(sharding, "get_process_index_and_count", lambda: (0, 2))
    save_three(tmp_path)
    monkeypatch.undo()
    restored = restore(tmp_path)
    assert restored is not None and restored[0] == 6 and restored[2] == 9


@pytest.mark.parametrize("ema", [True, False])
def test_loads_the_best_for_evaluation_without_data(tmp_path, ema):
    save_three(tmp_path, ema=ema)
    weights = load_weights(tmp_path / "best", initial_params())
    assert weights.step == 4 and weights.history.best == {"step": 4, "per": 0.3}
    assert (weights.ema is not None) == ema
    assert_equal_trees(weights.evaluation_params, initial_params(4))
    assert_equal_trees(load_weights(tmp_path / "best", None).params, initial_params(4))
    assert load_weights(tmp_path / "checkpoints", initial_params(), 6).step == 6
    with pytest.raises(CheckpointError, match=r"no checkpoint of step 5; there are \[4, 6\]"):
        load_weights(tmp_path / "checkpoints", initial_params(), 5)


def test_numbered_layers_are_loaded_without_the_model(tmp_path):
    params = {"layers": {number: {"kernel": jnp.full(3, float(number))} for number in (0, 1, 10)}}
    state = create_state(params, optax.sgd(0.1), data_mesh(), ema=False)
    Checkpoints(tmp_path, keep=1).save_best(2, state, History())
    assert_equal_trees(load_weights(tmp_path / "best", params).params, params)
    loaded = load_weights(tmp_path / "best", None).params
    assert {name: float(layer["kernel"][0]) for name, layer in loaded["layers"].items()} == {
        "0": 0.0,
        "1": 1.0,
        "10": 10.0,
    }


def test_another_models_checkpoint_is_refused(tmp_path):
    save_three(tmp_path)
    wider = initial_params()
    wider["phoneme"]["kernel"] = jnp.zeros((8, 50))
    renamed = initial_params()
    renamed["word"] = renamed.pop("phoneme")
    for params, words in (
        (wider, r"\['phoneme'\]\['kernel'\] is float32\[8, 41\] there, float32\[8, 50\] here"),
        (renamed, r"\['phoneme'\]\['kernel'\] is float32\[8, 41\] there, absent here"),
    ):
        with pytest.raises(CheckpointError, match=rf"checkpoints/6: .*{words}") as caught:
            Checkpoints(tmp_path, keep=2).restore(state_at(0, params=params), numbers())
        assert "elete" not in str(caught.value)
        with pytest.raises(CheckpointError, match=rf"best/4: .*{words}"):
            load_weights(tmp_path / "best", params)
