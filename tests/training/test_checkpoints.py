import dataclasses
import gc
import shutil

import grain
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modessm_jax.training.checkpoints import CheckpointError, Checkpoints, claim, load_weights
from modessm_jax.training.history import History
from modessm_jax.training.mesh import data_mesh
from modessm_jax.training.optimizer import make_optimizer
from modessm_jax.training.state import create_state
from tests.training.toy import OPTIMIZER, initial_params

OPTAX = make_optimizer(**OPTIMIZER, steps=10)[0]


def numbers():
    return iter(grain.MapDataset.source(range(100)).to_iter_dataset())


def state_at(step, *, ema=True, params=None):
    state = create_state(params or initial_params(step), OPTAX, data_mesh(), ema=ema)
    return dataclasses.replace(state, step=state.step + step)


def save_three(workdir, *, keep=2, ema=True):
    """Checkpoints after 2, 4 and 6 steps; the second is the best. Draws three numbers each."""
    batches, history = numbers(), History()
    with Checkpoints(workdir, keep=keep) as checkpoints:
        for step, per in ((2, 0.5), (4, 0.3), (6, 0.4)):
            for _ in range(3):
                next(batches)
            state = state_at(step, ema=ema)
            if history.evaluated(step, {"per": per}, "per"):
                checkpoints.save_best(step, state, history)
            checkpoints.save(step, state, batches, history)


def folders(path):
    return sorted(folder.name for folder in path.iterdir())


def assert_equal_trees(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_keeps_the_last_and_the_best_and_restores_all_of_it(tmp_path):
    save_three(tmp_path)
    assert folders(tmp_path / "checkpoints") == ["4", "6"]
    assert folders(tmp_path / "best") == ["4"]
    batches = numbers()
    with Checkpoints(tmp_path, keep=2) as checkpoints:
        assert checkpoints.latest == 6
        state, history = checkpoints.restore(state_at(0), batches)
    assert_equal_trees(state, state_at(6))
    assert state.params["encoder"]["kernel"].sharding.device_set == set(jax.devices())
    assert next(batches) == 9
    assert history.best == {"step": 4, "per": 0.3}
    assert [record["step"] for record in history.evaluations] == [2, 4, 6]


def test_the_former_best_stays_until_the_next_checkpoint(tmp_path):
    save_three(tmp_path)
    with Checkpoints(tmp_path, keep=2) as checkpoints:
        state, history = checkpoints.restore(state_at(0), numbers())
        history.evaluated(8, {"per": 0.1}, "per")
        checkpoints.save_best(8, state, history)
        assert folders(tmp_path / "best") == ["4", "8"]
        checkpoints.save(8, state, numbers(), history)
    assert folders(tmp_path / "best") == ["8"]


@pytest.mark.parametrize("ema", [True, False])
def test_loads_the_best_for_evaluation_without_data(tmp_path, ema):
    save_three(tmp_path, ema=ema)
    weights = load_weights(tmp_path / "best", initial_params())
    assert weights.step == 4 and weights.history.best == {"step": 4, "per": 0.3}
    assert (weights.ema is not None) == ema
    assert_equal_trees(weights.evaluation_params, initial_params(4))
    assert load_weights(tmp_path / "checkpoints", initial_params(), 6).step == 6
    with pytest.raises(CheckpointError, match=r"no checkpoint of step 5; there are \[4, 6\]"):
        load_weights(tmp_path / "checkpoints", initial_params(), 5)


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
        refused = pytest.raises(CheckpointError, match=rf"checkpoints/6: .*{words}")
        with Checkpoints(tmp_path, keep=2) as checkpoints, refused:
            checkpoints.restore(state_at(0, params=params), numbers())
        with pytest.raises(CheckpointError, match=rf"best/4: .*{words}"):
            load_weights(tmp_path / "best", params)


@pytest.mark.parametrize("lost", ["weights", "optimizer", "data", "history"])
def test_an_unreadable_checkpoint_is_refused_and_the_one_before_goes_on(tmp_path, lost):
    save_three(tmp_path)
    damaged = tmp_path / "checkpoints" / "6"
    shutil.rmtree(damaged / lost)
    refused = pytest.raises(CheckpointError, match=rf"checkpoints/6: .*Delete that .*no {lost}")
    with Checkpoints(tmp_path, keep=2) as checkpoints, refused:
        checkpoints.restore(state_at(0), numbers())
    shutil.rmtree(damaged)
    with Checkpoints(tmp_path, keep=2) as checkpoints:
        state, _ = checkpoints.restore(state_at(0), numbers())
    assert state.step == 4


# Orbax leaves reads unfinished when one of them fails; what their finalisers say is collected here.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_damaged_arrays_are_refused(tmp_path):
    save_three(tmp_path)
    for file in (tmp_path / "checkpoints" / "6" / "weights" / "d").iterdir():
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    refused = pytest.raises(CheckpointError, match=r"checkpoints/6: .*Delete that folder")
    with Checkpoints(tmp_path, keep=2) as checkpoints, refused:
        checkpoints.restore(state_at(0), numbers())
    gc.collect()


def test_an_empty_directory_is_named(tmp_path):
    with pytest.raises(CheckpointError, match="no checkpoint here"):
        load_weights(tmp_path / "best", initial_params())
    with pytest.raises(ValueError, match=r"training.keep is 0"):
        Checkpoints(tmp_path, keep=0)


CONFIG = {"data": {"workers": 0, "sessions": []}, "training": {"steps": 10, "log_every": 5}}


def test_a_run_of_another_config_is_refused_with_its_differences(tmp_path):
    claim(tmp_path, CONFIG, resuming=False)
    other = {**CONFIG, "training": {"steps": 20, "log_every": 5}, "model": {"width": 3}}
    with pytest.raises(CheckpointError) as caught:
        claim(tmp_path, other, resuming=True)
    assert "training.steps: 10 then, 20 now" in str(caught.value)
    assert "model.width: 'absent' then, 3 now" in str(caught.value)
    assert "log_every" not in str(caught.value)
    claim(tmp_path, other, resuming=False)
    claim(tmp_path, other, resuming=True)


def test_keys_that_do_not_change_the_result_may_change(tmp_path):
    claim(tmp_path, CONFIG, resuming=False)
    freer = {"data": {"workers": 4, "sessions": []}, "training": {"steps": 10, "log_every": 1}}
    claim(tmp_path, freer, resuming=True)
    assert '"workers": 4' in (tmp_path / "config.json").read_text()
    (tmp_path / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"config\.json is missing"):
        claim(tmp_path, freer, resuming=True)
