"""A thousand spoiled steps: none of them reaches the parameters, each names its trials."""

import dataclasses
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modessm_jax.runs.state import all_finite, create_state
from modessm_jax.runtime.mesh import data_mesh
from modessm_jax.training.step import StepSpec, make_step, shard_batch
from tests import toy

STEPS = 1000
MARK = 777.0
KINDS = ("nan", "inf", "label too large", "label blank", "label negative", "gradient")


@jax.custom_vjp
def spoil_gradient(x, rows):
    del rows
    return x


spoil_gradient.defvjp(
    lambda x, rows: (x, rows),
    lambda rows, g: (jnp.where(rows[:, None, None], jnp.nan, g), None),
)


def apply(params, features, session, hidden, key):
    """The toy model; rows that are marked have a finite cost and a gradient of NaN."""
    outputs = toy.apply(params, features, session, hidden, key)
    logits = outputs.logits["phoneme"]
    marked = (features.values > MARK - 1.0).any(axis=(1, 2))
    logits = logits.with_values(spoil_gradient(logits.values, marked))
    return dataclasses.replace(outputs, logits={**outputs.logits, "phoneme": logits})


def inject(kind, batch, rows):
    if kind in ("nan", "inf"):
        batch.features.values[rows] = float(kind)
    elif kind == "gradient":
        batch.features.values[rows] = MARK
    else:
        wrong = {"label too large": toy.CLASSES, "label blank": 0, "label negative": -3}
        batch.labels.values[rows, 0] = wrong[kind]


@pytest.mark.slow
def test_a_thousand_injections_change_nothing_and_name_their_trials(record_testsuite_property):
    mesh = data_mesh(jax.devices()[:1])
    plan = toy.plan(steps=2 * STEPS)
    spec = StepSpec(apply, "frames", 3, mesh, augment=toy.augment, ema_decay=0.9)
    step = make_step(spec, plan)
    state = create_state(toy.initial_params(), plan.optimizer, mesh, ema=True)
    random = np.random.default_rng(0)
    skipped: Counter[str] = Counter()
    batches = [toy.batch_of(index) for index in range(8)]
    for number in range(STEPS):
        if number % 10 == 0:  # so that the parameters move
            state, report = step(state, shard_batch(batches[number // 10 % 8], mesh))
            assert report.scalars["skipped"] == 0.0 and (report.nonfinite == -1).all()
        batch = jax.tree.map(np.copy, batches[number % 8])
        kind = KINDS[number % len(KINDS)]
        rows = random.choice(toy.ROWS, random.integers(1, 4), replace=False)
        inject(kind, batch, rows)
        before = jax.device_get((state.params, state.ema, state.opt_state))
        state, report = step(state, shard_batch(batch, mesh))
        after = jax.device_get((state.params, state.ema, state.opt_state))
        jax.tree.map(np.testing.assert_array_equal, before, after)
        assert report.scalars["skipped"] == 1.0, (number, kind)
        # Which trial a gradient comes from is not known: all of the batch are to be looked at.
        named = batch.trial if kind == "gradient" else batch.trial[rows]
        assert set(np.asarray(report.nonfinite).tolist()) - {-1} == set(named.tolist()), kind
        skipped[kind] += 1
    assert all_finite((state.params, state.ema, state.opt_state))
    assert state.step == STEPS + STEPS // 10
    # The table of `make faults` says so.
    kinds = ", ".join(f"{count} {kind}" for kind, count in skipped.items())
    record_testsuite_property("times", skipped.total())
    record_testsuite_property("outcome", f"nothing changed, trials named in each ({kinds})")
