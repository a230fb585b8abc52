"""Recalibration without labels: one true gradient step, on the adapter alone, and taken back."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from modessm_jax.phonemes import CLASSES
from modessm_jax.recalibration.adapter import adapter_of, first_adapter, with_adapter, with_session
from modessm_jax.recalibration.unlabelled import Options, Recalibrator
from modessm_jax.runs.load import Run, build_model
from modessm_jax.runs.sessions import with_mean
from modessm_jax.sequence import Sequence

CHANNELS, BINS, CLASS = 4, 60, 7
CONFIG = {
    "augment": {"time_masks": 2, "white_noise": 0.1},
    "model": {
        "name": "gru", "d": 8, "layers": 1, "patch": 4, "stride": 4, "taps": 3,
        "input_dropout": 0.0, "dropout": 0.0, "session": "affine", "smoothing": 0.0,
        "bidirectional": False, "dtype": "float32",
    },
    "training": {"seed": 3},
}  # fmt: skip


@pytest.fixture(scope="module")
def run() -> Run:
    """An untrained model of two sessions that nearly always says one phoneme."""
    functional = build_model(CONFIG, CHANNELS, 2)
    params: Any = jax.tree.map(jnp.array, functional.params)
    params["head"]["bias"] = params["head"]["bias"].at[CLASS].set(2.0)
    params["adaptation"]["offset"] = jnp.arange(2.0)[:, None] * jnp.ones((1, CHANNELS))
    sessions = {"day.2024.01.01": 0, "day.2024.01.05": 1}
    return Run(CONFIG, sessions, CHANNELS, functional, with_mean(params, sessions), 5)


@pytest.fixture(scope="module")
def features() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(BINS, CHANNELS)).astype(np.float32)


def test_a_session_begins_with_the_adapter_of_the_nearest_day(run):
    assert first_adapter(run, "day.2024.01.04", "nearest")["offset"].tolist() == [1.0] * CHANNELS
    assert first_adapter(run, "day.2024.01.04", "mean")["offset"].tolist() == [0.5] * CHANNELS
    without = run._replace(config={**CONFIG, "model": {**CONFIG["model"], "session": "none"}})
    with pytest.raises(ValueError, match=r"no adapters of sessions .* front_end or all"):
        first_adapter(without, "day.2024.01.04", "nearest")


def test_a_session_joins_a_run_and_changes_no_other(run):
    adapter = jax.tree.map(lambda leaf: leaf + 3, adapter_of(run.params, 0))
    made = with_session(run, "new", adapter)
    assert list(made.sessions) == ["day.2024.01.01", "day.2024.01.05", "new"]
    assert made.params["adaptation"]["offset"][:, 0].tolist() == [
        0.0,
        1.0,
        3.0,
        pytest.approx(4 / 3),
    ]
    replaced = with_session(made, "day.2024.01.01", adapter)
    offsets = {
        n: replaced.params["adaptation"]["offset"][i, 0] for n, i in replaced.sessions.items()
    }
    assert offsets == {"day.2024.01.05": 1.0, "new": 3.0, "day.2024.01.01": 3.0}


def test_a_step_is_that_of_adam_on_the_true_gradient(run, features):
    begin = first_adapter(run, "day.2024.01.05", "nearest")
    quiet = run._replace(config={**CONFIG, "augment": {"time_masks": 0, "white_noise": 0.0}})
    recalibrator = Recalibrator(quiet, Options(method="pseudo_labels", rate=1e-3))
    recalibrator.begin(begin)
    update = recalibrator(features)
    assert update.phonemes == [CLASS] and update.frames.shape == ((BINS - 4) // 4 + 1, CLASSES)

    def loss(adapter: Any) -> Any:
        session = jnp.zeros(1, jnp.int32)
        x = Sequence.from_lengths(jnp.asarray(features[None]), jnp.array([BINS]))
        params = with_adapter(run.params, adapter)
        logits = run.functional.apply(params, x, session).logits["phoneme"]
        labels = jnp.array([[CLASS]])
        nats = optax.ctc_loss(
            logits.values, 1.0 - logits.mask, labels, jnp.zeros((1, 1)), blank_id=0
        )
        return (nats / logits.lengths)[0]

    expected, gradient = jax.jit(jax.value_and_grad(loss))(begin)
    assert update.loss == pytest.approx(float(expected), rel=1e-5)
    for name, leaf in begin.items():
        # Adam's first step is the rate times the sign of the gradient.
        sizeable = np.abs(gradient[name]) > 1e-5
        assert sizeable.any()
        moved = np.asarray(recalibrator.adapter[name] - leaf)
        np.testing.assert_allclose(
            moved[sizeable], -1e-3 * np.sign(gradient[name])[sizeable], rtol=1e-2
        )


@pytest.mark.parametrize("method", ["pseudo_labels", "masked_copies", "entropy"])
def test_steps_make_the_decoder_surer(run, features, method):
    begin = first_adapter(run, "day.2024.01.05", "nearest")
    sure = run._replace(
        params={**run.params, "head": jax.tree.map(lambda x: 3 * x, run.params["head"])}
    )
    recalibrator = Recalibrator(sure, Options(method=method, rate=1e-2, window=100))
    recalibrator.begin(begin)
    updates = [recalibrator(features) for _ in range(8)]
    losses = [update.loss for update in updates if update.loss is not None]
    assert len(losses) == 8 and losses[-1] < losses[0]
    assert all(update.phonemes == [CLASS] for update in updates)


def test_steps_after_which_the_decoder_doubts_more_are_taken_back(run, features):
    begin = first_adapter(run, "day.2024.01.05", "nearest")
    said: list[list[int]] = []
    options = Options(method="pseudo_labels", rate=1e-3, window=2)
    recalibrator = Recalibrator(run, options, label=lambda _: said.pop(0))
    for now, before, worse in (([CLASS, 9], [CLASS], True), ([CLASS], [CLASS, 9], False)):
        # The first trial is labelled once, the others with the new adapter and with the one kept.
        said += [[CLASS], now, before]
        recalibrator.begin(begin)
        assert not recalibrator(features).taken_back
        assert recalibrator.kept is not recalibrator.adapter
        assert recalibrator(features).taken_back is worse
        kept = recalibrator.result()
        assert (recalibrator.taken_back, recalibrator.checks) == (int(worse), 1)
        assert np.array_equal(kept["weight"], begin["weight"]) is worse


def test_what_no_step_is_made_for(run, features):
    begin = first_adapter(run, "day.2024.01.05", "nearest")
    silent: Any = jax.tree.map(jnp.array, run.params)
    silent["head"]["bias"] = silent["head"]["bias"].at[0].set(9.0)
    quiet = Recalibrator(run._replace(params=silent), Options(method="pseudo_labels", window=1))
    quiet.begin(begin)
    update = quiet(features)
    assert (update.phonemes, update.loss, update.doubt) == ([], None, math.inf)
    assert update.unused == "nothing was found in it"
    assert quiet.checks == 0  # silence says nothing of either adapter
    unsure: Any = jax.tree.map(jnp.zeros_like, run.params["head"])
    unsure["bias"] = unsure["bias"].at[CLASS].set(0.5)
    made = run._replace(params={**run.params, "head": unsure})
    unsure_of_all = Recalibrator(made, Options(method="entropy"))
    unsure_of_all.begin(begin)
    update = unsure_of_all(features)
    assert (update.loss, update.unused) == (None, "what was found in it is too uncertain")
    broken = Recalibrator(run, Options(method="pseudo_labels"))
    broken.begin(begin)
    nothing = {name: np.full_like(leaf, np.nan) for name, leaf in begin.items()}
    broken._step = lambda *_: (nothing, None, 1.0)
    update = broken(features)
    assert (update.loss, update.unused) == (None, "its loss or its gradient is not finite")
    assert broken.adapter["weight"] is begin["weight"]
    assert quiet.adapter["weight"] is begin["weight"]


def test_what_cannot_be_recalibrated(run):
    unfit: list[tuple[dict[str, Any], str]] = [
        ({"method": "guess"}, "choose one of statistics, pseudo_labels"),
        ({"rate": 0.0}, "give a finite number above 0"),
        ({"copies": 0}, "copies is 0; give 1 or more"),
    ]
    for options, message in unfit:
        with pytest.raises(ValueError, match=message):
            Options(**options)
    unmasked = run._replace(config={**CONFIG, "augment": {}})
    with pytest.raises(ValueError, match=r"time_masks is 0\): choose pseudo_labels"):
        Recalibrator(unmasked, Options(method="masked_copies"))
    scaled = run._replace(config={**CONFIG, "model": {**CONFIG["model"], "session": "layernorm"}})
    with pytest.raises(ValueError, match=r"statistics need model\.session .affine."):
        Recalibrator(scaled, Options(method="statistics"))
