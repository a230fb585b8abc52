import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modessm_jax.runs.state import create_state
from modessm_jax.runtime.mesh import data_mesh
from modessm_jax.training import loop
from modessm_jax.training.diagnosis import by_module, diagnose, diagnose_state, nonfinite_paths
from modessm_jax.training.rollback import NonFiniteError
from modessm_jax.training.step import StepSpec
from tests import toy
from tests.training.test_logbook import Played
from tests.training.test_loop import configuration, run


class Squared:
    """Finite, with a gradient that is not where the input is 0."""

    def __call__(self, x):
        return jnp.sqrt(x * x)


class Layer:
    def __init__(self):
        self.parts = [Squared(), Divided()]

    def __call__(self, x, part):
        return self.parts[part](x)


class Divided:
    def __call__(self, x):
        return jax.lax.stop_gradient((x - x) / (x - x))


class Model:
    def __init__(self, part):
        self.layer = Layer()
        self.part = part

    def __call__(self, params, features, session, hidden, key):
        outputs = toy.apply_without_dropout(params, features, session, hidden, key)
        logits = outputs.logits["phoneme"]
        broken = self.layer(params["encoder"]["bias"].sum(), self.part)
        # Only trials whose first feature is above 50 come near the layer.
        near = (features.values[:, 0, 0] > 50.0)[:, None, None]
        logits = logits.with_values(logits.values + jnp.where(near, broken, 0.0))
        return dataclasses.replace(outputs, logits={"phoneme": logits})


def report(part, mark=True):
    batch = toy.batch_of(0)
    batch.features.values[5, 0, 0] = 99.0 if mark else 0.0
    spec = StepSpec(Model(part), "frames", seed=0, mesh=data_mesh(jax.devices()[:1]))
    return diagnose(toy.initial_params(), 0, batch, "trial {}".format, spec, toy.plan())


@pytest.mark.slow
def test_names_the_trial_the_layer_and_the_modules_of_a_step():
    text = report(part=1)
    assert "loss nan, gradient norm nan" in text
    assert "not finite by themselves: trial 5\n" in text
    assert "features that are not finite: none\n" in text
    assert "test_diagnosis.py (Model > layer > parts[1]): invalid value" in text
    assert "encoder nan" in text and "session" in text.splitlines()[-1]


@pytest.mark.slow
def test_tells_a_gradient_that_is_not_finite_from_a_loss():
    text = report(part=0)
    assert "loss 3." in text and "gradient norm nan" in text
    assert "in the backward pass of __call__" in text
    assert "test_diagnosis.py: invalid value (nan) encountered in mul" in text


def test_names_what_only_the_optimiser_or_the_average_shows():
    state = create_state(toy.initial_params(), toy.plan().optimizer, data_mesh(), ema=True)
    assert diagnose_state(state) == "  not finite in the state: none"
    average = {**toy.initial_params(), "session": {"offset": jnp.full((3, 8), jnp.nan)}}
    spoiled = jax.tree.map(
        lambda x: x + jnp.inf if x.ndim == 2 and len(x) == 1 else x, state.opt_state
    )
    found = diagnose_state(dataclasses.replace(state, ema=average, opt_state=spoiled))
    assert "ema/session/offset" in found and "params/" not in found
    assert re.findall(r"optimizer/\S+mask/embedding", found)


def test_a_run_that_ends_over_its_optimiser_says_so(monkeypatch, tmp_path):
    class Spoiling(Played):
        def __call__(self, state, batch):
            state, report = super().__call__(state, batch)
            with jax.transfer_guard("allow"):
                spoiled = jax.tree.map(
                    lambda x: x * jnp.nan if jnp.issubdtype(x.dtype, jnp.floating) else x,
                    state.opt_state,
                )
            return dataclasses.replace(state, opt_state=spoiled), report

    monkeypatch.setattr(loop, "make_step", lambda *_: Spoiling(lambda step, rate: 1.0))
    with pytest.raises(NonFiniteError, match=r"step 3: .*\n  not finite in the state: optimizer/"):
        run(tmp_path, config=configuration({"tries": 0}, ema_decay=0.0))


def test_norms_of_a_module_and_paths_of_what_is_not_finite():
    tree = {"a": {"b": {"c": {"x": np.float32(3.0)}, "y": np.float32(4.0)}}, "z": np.float32(1.0)}
    assert by_module(tree) == pytest.approx({"a/b": 5.0, "": 1.0})
    tree["a"]["b"]["y"] = np.float32(np.inf)
    assert nonfinite_paths(tree) == ["a/b/y"]
