import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modessm_jax.losses.ctc import ctc_cost
from modessm_jax.runs.state import create_state
from modessm_jax.runtime.mesh import data_mesh
from modessm_jax.training.step import StepSpec, make_step, no_augmentation, shard_batch
from tests import toy

WEIGHTS = (("phoneme", 1.0), ("interctc", 0.3), ("label_smoothing", 0.1))
TWO_VIEWS = (("phoneme", 1.0), ("consistency", 0.2))
PLAIN = {"weights": (("phoneme", 1.0),), "augment": no_augmentation}


@functools.cache
def machinery(
    devices=4,
    accumulate=1,
    normalize_by="frames",
    apply=toy.apply_without_dropout,
    augment=toy.augment,
    weights=WEIGHTS,
    seed=3,
):
    mesh = data_mesh(jax.devices()[:devices])
    # Without clipping and with b1 = 0 Adam's first moment is the gradient itself.
    plan = toy.plan(dict(weights), clip_norm=1e9, b1=0.0)
    spec = StepSpec(
        apply,
        normalize_by=normalize_by,
        seed=seed,
        mesh=mesh,
        augment=augment,
        ema_decay=0.9,
        accumulate=accumulate,
    )
    return mesh, plan.optimizer, make_step(spec, plan)


def run(batch, **kwargs):
    """The state after one update, its report and the gradient."""
    mesh, optimizer, step = machinery(**kwargs)
    state = create_state(toy.initial_params(), optimizer, mesh, ema=True)
    state, report = step(state, shard_batch(batch, mesh, kwargs.get("accumulate", 1)))
    gradient = next(s.mu for s in jax.tree.leaves(state.opt_state, is_leaf=_is_adam) if _is_adam(s))
    return jax.device_get((state, report, gradient))


def _is_adam(node):
    return hasattr(node, "mu")


def uneven():
    """Two rows too short for their labels, and one that only fills up the batch."""
    batch = toy.batch_of(0)
    batch.features.mask[2, 1:] = False
    batch.labels.mask[2] = True
    batch.features.mask[5, 1:] = False
    batch.labels.mask[5] = True
    batch.features.mask[7] = batch.labels.mask[7] = False
    batch.trial[7] = -1
    return batch


def assert_same_update(one, other):
    (_, report_a, gradient_a), (_, report_b, gradient_b) = one, other
    assert report_a.scalars.keys() == report_b.scalars.keys()
    for name, value in report_a.scalars.items():
        np.testing.assert_allclose(value, report_b.scalars[name], rtol=1e-5, err_msg=name)
    for a, b in zip(jax.tree.leaves(gradient_a), jax.tree.leaves(gradient_b), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * np.abs(a).max())
    np.testing.assert_array_equal(report_a.infeasible, report_b.infeasible)


def test_one_device_and_four_agree():
    one, four = run(uneven(), devices=1), run(uneven(), devices=4)
    assert np.abs(one[2]["encoder"]["kernel"]).max() > 1e-3
    assert_same_update(one, four)


@pytest.mark.parametrize(
    "normalize_by", ["frames", pytest.param("seed_rule", marks=pytest.mark.slow)]
)
def test_micro_batches_add_up_to_the_whole_batch(normalize_by):
    whole = run(uneven(), normalize_by=normalize_by)
    assert_same_update(whole, run(uneven(), normalize_by=normalize_by, accumulate=2))


@pytest.mark.slow
def test_micro_batches_keep_the_two_views_of_a_trial_together():
    whole = run(uneven(), weights=TWO_VIEWS)
    assert whole[1].scalars["loss/consistency"] > 0
    assert_same_update(whole, run(uneven(), weights=TWO_VIEWS, accumulate=2))
    assert_same_update(whole, run(uneven(), weights=TWO_VIEWS, devices=1))


def test_two_views_that_are_the_same_agree_and_cost_what_one_does():
    one = run(uneven(), **PLAIN)
    two = run(uneven(), weights=TWO_VIEWS, augment=no_augmentation)
    assert two[1].scalars["loss/consistency"] == pytest.approx(0, abs=1e-6)
    np.testing.assert_allclose(
        one[1].scalars["loss/phoneme"], two[1].scalars["loss/phoneme"], rtol=1e-6
    )
    for a, b in zip(jax.tree.leaves(one[2]), jax.tree.leaves(two[2]), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    assert sorted(two[1].infeasible.tolist()) == [-1] * 6 + [2, 5]


def test_reports_and_names_what_cannot_be_aligned():
    _, report, _ = run(uneven())
    assert report.scalars["infeasible"] == 2
    assert report.scalars["valid"] == 5
    assert sorted(report.infeasible.tolist()) == [-1] * 6 + [2, 5]
    assert (report.nonfinite == -1).all()


def test_infeasible_and_filler_rows_change_nothing_but_the_count():
    batch = uneven()
    ruined = uneven()
    for row in (2, 5, 7):
        ruined.features.values[row] = np.nan if row == 7 else 1e4
    one, other = run(batch, **PLAIN), run(ruined, **PLAIN)
    for a, b in zip(jax.tree.leaves(one[2]), jax.tree.leaves(other[2]), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_batch_without_a_valid_row_is_harmless():
    batch = toy.batch_of(1)
    batch.features.mask[:] = False
    for accumulate in (1, 2):
        state, report, gradient = run(batch, accumulate=accumulate)
        assert report.scalars["loss"] == 0 and report.scalars["gradient_norm"] == 0
        assert report.scalars["infeasible"] == toy.ROWS
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((state, gradient)))


def test_loss_is_the_mean_cost_per_frame():
    batch = jax.tree.map(jnp.asarray, toy.batch_of(2))
    _, report, _ = run(batch, **PLAIN)
    outputs = toy.apply(
        toy.initial_params(), batch.features, batch.session, jnp.zeros((8, 24), bool), None
    )
    cost = ctc_cost(outputs.logits["phoneme"], batch.labels)
    expected = np.mean(cost.nats / outputs.encoder.lengths)
    np.testing.assert_allclose(report.scalars["loss"], expected, rtol=1e-5)


def test_same_seed_and_step_give_the_same_update_and_another_step_another():
    kwargs = dict(apply=toy.apply, accumulate=2)
    first, again = run(toy.batch_of(3), **kwargs), run(toy.batch_of(3), **kwargs)
    for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(again), strict=True):
        np.testing.assert_array_equal(a, b)
    mesh, optimizer, step = machinery(**kwargs)
    state = create_state(toy.initial_params(), optimizer, mesh, ema=True)
    later = dataclasses.replace(state, step=state.step + 1)
    _, report = step(later, shard_batch(toy.batch_of(3), mesh))
    assert float(report.scalars["loss"]) != float(first[1].scalars["loss"])


def test_counts_its_steps_reports_its_rate_and_averages():
    state, report, _ = run(toy.batch_of(4))
    assert state.step == 1
    np.testing.assert_allclose(report.scalars["learning_rate"], 1e-2 / 3, rtol=1e-6)
    before, after = toy.initial_params()["phoneme"]["kernel"], state.params["phoneme"]["kernel"]
    expected = before * (2 / 11) + after * (9 / 11)
    np.testing.assert_allclose(state.ema["phoneme"]["kernel"], expected, rtol=1e-5)
    assert report.scalars["diagnostics/norm"] > 0


def test_names_trials_whose_cost_is_not_finite():
    batch = toy.batch_of(5)
    batch.features.values[3, 0] = np.nan
    _, report, _ = run(batch)
    assert sorted(report.nonfinite.tolist())[-1] == batch.trial[3]
    assert not np.isfinite(report.scalars["loss"])


def test_refuses_objectives_and_batches_that_do_not_fit():
    with pytest.raises(ValueError, match="diphone"):
        run(toy.batch_of(0), weights=(("phoneme", 1.0), ("diphone", 1.0)))
    with pytest.raises(ValueError, match=r"no objective"):
        run(toy.batch_of(0), weights=(("phoneme", 0.0),))
    with pytest.raises(ValueError, match="batch_size is 6"):
        run(toy.batch_of(0, rows=6))
    with pytest.raises(ValueError, match=r"accumulate \(2\)"):
        run(toy.batch_of(0, rows=12), accumulate=2)


def test_runs_of_other_seeds_have_one_program_and_other_updates():
    """Compiling it for each seed would take a quarter of a short run."""
    kwargs = dict(apply=toy.apply, accumulate=2)
    mesh, optimizer, step = machinery(**kwargs)
    other = machinery(seed=4, **kwargs)[2]
    state = create_state(toy.initial_params(), optimizer, mesh, ema=True)
    batch = shard_batch(toy.batch_of(3), mesh, 2)
    assert step.lower(state, batch).as_text() == other.lower(state, batch).as_text()
    _, report = dataclasses.replace(step, seed=other.seed)(state, batch)
    first = run(toy.batch_of(3), **kwargs)[1]
    assert float(report.scalars["loss"]) != float(first.scalars["loss"])


def test_finding_the_shares_of_micro_batches_does_not_run_the_model_twice():
    mesh, optimizer, step = machinery(devices=1, accumulate=2, **PLAIN)
    state = create_state(toy.initial_params(), optimizer, mesh, ema=True)
    program = step.lower(state, shard_batch(toy.batch_of(0), mesh, 2)).compile().as_text()
    assert len(re.findall(r"\btanh\(", program)) == 1
