import dataclasses

import jax
import numpy as np
import optax
import pytest

from modessm_jax.runs.checkpoints import CheckpointError, Checkpoints
from modessm_jax.runs.export import export
from modessm_jax.runs.history import History
from modessm_jax.runs.state import create_state, evaluation_params
from modessm_jax.runtime.mesh import data_mesh
from tests.toy import initial_params


@pytest.mark.parametrize("ema", [True, False])
def test_what_is_written_is_what_is_evaluated(tmp_path, ema):
    state = create_state(initial_params(1), optax.sgd(0.1), data_mesh(), ema=ema)
    if ema:
        state = dataclasses.replace(state, ema=jax.tree.map(lambda x: x + 1, state.ema))
    Checkpoints(tmp_path, keep=1).save_best(7, state, History())
    out = tmp_path / "new folder" / "model.npz"
    assert export(tmp_path, out).step == 7
    with np.load(out) as arrays:
        assert set(arrays) == {
            "encoder/kernel",
            "encoder/bias",
            "session/offset",
            "phoneme/kernel",
            "interctc/kernel",
            "mask/embedding",
        }
        expected = evaluation_params(state)["encoder"]["kernel"]
        np.testing.assert_array_equal(arrays["encoder/kernel"], expected)
        assert arrays["encoder/kernel"].dtype == np.float32
    with pytest.raises(CheckpointError, match="no checkpoint here"):
        export(tmp_path, out, step=7)
    assert not list(tmp_path.rglob("*.partial"))
