"""Runs that go back: after steps that are not finite, and after a loss that rises."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modessm_jax.runs.checkpoints import CheckpointError, load_weights
from modessm_jax.runtime.preemption import PreemptedError
from modessm_jax.training import loop, rollback
from modessm_jax.training.rollback import DivergedError, NonFiniteError
from modessm_jax.training.step import StepReport
from tests import toy
from tests.training.test_loop import Killed, configuration, fingerprint, run, untimed

pytestmark = pytest.mark.usefixtures("shared_programs")


def spoil(*indices):
    def change(index, batch):
        if index in indices:
            batch.features.values[3] = np.nan

    return change


def lines_of(workdir, *kinds):
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return [line for line in map(json.loads, lines) if line["kind"] in kinds]


def test_a_step_that_is_not_finite_changes_nothing_and_is_counted_and_named(tmp_path, capsys):
    results = run(tmp_path, change=spoil(4, 6))
    assert results["skipped"] == 2 and results["rollbacks"] == []
    # Trials are numbered through: batch 4 begins with 32, batch 6 with 48.
    assert [(line["step"], line["trials"]) for line in lines_of(tmp_path, "skipped")] == [
        (5, ["trial 35"]),
        (7, ["trial 51"]),
    ]
    train = {line["step"]: line for line in lines_of(tmp_path, "train")}
    assert [train[step]["skipped"] for step in (3, 6, 9, 10)] == [0, 1, 1, 0]
    assert all(np.isfinite(line["loss"]) for line in train.values())
    assert "step 5: skipped, the loss is nan" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("end", [6, 9])
def test_skipped_steps_are_skipped_again_by_a_run_that_goes_on(tmp_path, end):
    results = run(tmp_path / "straight", change=spoil(4, 5, 8))
    with pytest.raises(Killed):
        run(tmp_path / "killed", change=spoil(4, 5, 8), end=end)
    assert untimed(run(tmp_path / "killed", change=spoil(4, 5, 8))) == untimed(results)
    assert_same_end(tmp_path / "killed", tmp_path / "straight", 10)


def assert_same_end(one, other, step):
    assert fingerprint(one, step) == fingerprint(other, step)
    assert (one / "metrics.jsonl").read_bytes() == (other / "metrics.jsonl").read_bytes()


@pytest.mark.slow
def test_too_many_in_a_row_send_the_run_back_and_a_fault_that_passes_is_got_over(tmp_path, capsys):
    read = []

    def fail_once(index, batch):
        read.append(index)
        if index in (5, 6) and read.count(index) == 1:
            batch.features.values[:] = np.inf

    config = configuration({"nonfinite_budget": 1})
    results = run(tmp_path / "back", config=config, change=fail_once)
    assert [(s["cause"], s["found"], s["to"]) for s in results["rollbacks"]] == [
        ("nonfinite", 7, 4)
    ]
    assert results["skipped"] == 0 and results["seconds"]["lost"] > 0
    assert "step 7: too many steps in a row were not finite; back to step 4" in (
        capsys.readouterr().out
    )
    assert lines_of(tmp_path / "back", "rollback")[0]["step"] == 4
    run(tmp_path / "straight")
    assert fingerprint(tmp_path / "back", 10) == fingerprint(tmp_path / "straight", 10)


@pytest.fixture
def undiagnosed(monkeypatch):
    """Saves the minutes of a diagnosis, which has tests of its own."""
    monkeypatch.setattr(
        rollback, "diagnose", lambda params, step, batch, *_, **__: f"{step} {batch.trial[0]}"
    )


@pytest.mark.usefixtures("undiagnosed")
def test_a_run_that_does_not_get_over_it_stops_with_a_diagnosis(tmp_path):
    config = configuration({"nonfinite_budget": 1, "tries": 2})
    # The diagnosis is of step 6: after 5 steps, of the batch that begins with trial 64, for batches
    # 4 to 6 have been skipped.
    for _ in range(2):
        with pytest.raises(NonFiniteError, match=r"(?s)step 6: .*went back 2 times.*\n5 64\n"):
            run(tmp_path, config=config, change=spoil(*range(5, 20)))
        saved = load_weights(tmp_path / "checkpoints", toy.initial_params(), 4)
        assert len(saved.history.rollbacks) == 2


@pytest.mark.slow
def test_batches_that_are_not_finite_again_are_skipped(tmp_path, capsys):
    config = configuration({"nonfinite_budget": 1})
    results = run(tmp_path, config=config, change=spoil(5, 6, 7, 8))
    assert [(s["found"], s["to"], s["batches_skipped"]) for s in results["rollbacks"]] == [
        (7, 4, 0),
        (7, 4, 3),  # batches 4 to 6
        (6, 4, 2),  # batches 7 and 8
    ]
    assert "not finite; back to step 4, 3 batches on" in capsys.readouterr().out
    assert results["skipped"] == 0 and results["steps"] == 10


@pytest.mark.slow
@pytest.mark.usefixtures("undiagnosed")
def test_before_the_first_checkpoint_it_goes_back_to_the_beginning(tmp_path):
    config = configuration({"nonfinite_budget": 0, "tries": 1})
    with pytest.raises(NonFiniteError, match="step 2"):
        run(tmp_path, config=config, change=spoil(1))
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["0"]


GUARD = {"divergence": True, "window": 16, "rise": 1.3, "tries": 2, "lr_factor": 0.5}


def diverging(save_every=8):
    return configuration(
        GUARD, steps=60, accumulate=1, log_every=10, eval_every=60, save_every=save_every, keep=1
    )


def apply_marked(params, features, session, hidden, key):
    """The toy model, which is sure of the wrong thing wherever a batch is marked."""
    outputs = toy.apply(params, features, session, hidden, key)
    factor = jnp.where(features.values[:, 0, 0] > 50.0, 30.0, 1.0)[:, None, None]
    logits = {k: x.with_values(x.values * factor) for k, x in outputs.logits.items()}
    return dataclasses.replace(outputs, logits=logits)


def run_marked(workdir, first, stop_at, **kwargs):
    """Trains on batches of which those from `first` up to `stop_at` are marked."""

    def change(index, batch):
        if first <= index < stop_at:
            batch.features.values[:, 0, 0] = 99.0

    kwargs = {"config": diverging(), "evaluate": lambda params, stage: {"per": 0.5}} | kwargs
    return run(workdir, change=change, apply=apply_marked, **kwargs)


@pytest.fixture(scope="module")
def recovered(tmp_path_factory):
    """A run whose loss rose twice, and its results."""
    workdir = tmp_path_factory.mktemp("recovered")
    return workdir, run_marked(workdir, 30, 36)


def test_a_loss_that_keeps_rising_sends_the_run_back_to_before_with_a_lower_rate(recovered):
    workdir, results = recovered
    # Three of the latest four steps; then the three that follow, which were not skipped.
    assert [(s["cause"], s["found"], s["sound"], s["to"]) for s in results["rollbacks"]] == [
        ("divergence", 33, 30, 24),
        ("divergence", 27, 24, 24),
    ]
    assert [(s["batches_skipped"], s["rate"]) for s in results["rollbacks"]] == [
        (9, 0.5),
        (3, 0.25),
    ]
    lines = lines_of(workdir, "train", "evaluation", "rollback")
    steps = [line["step"] for line in lines]
    assert steps == sorted(steps) and steps[-1] == 60 and steps.count(24) == 2
    last = lines_of(workdir, "train")[-1]
    assert last["learning_rate"] < 0.5 * 1e-2 and results["seconds"]["lost"] > 0.0


# After the first rollback; before the rise, in it, and after the second rollback.
SLOWLY = [pytest.param(end, marks=pytest.mark.slow) for end in (29, 32, 34, 50)]


@pytest.mark.parametrize("end", SLOWLY)
def test_a_killed_run_goes_back_to_the_same_bits(recovered, tmp_path, end):
    workdir, results = recovered
    with pytest.raises(Killed):
        run_marked(tmp_path, 30, 36, end=end)
    assert untimed(run_marked(tmp_path, 30, 36)) == untimed(results)
    assert_same_end(tmp_path, workdir, 60)


@pytest.mark.slow
def test_so_does_one_that_was_stopped_and_saved_in_between(recovered, tmp_path):
    workdir, results = recovered
    for step in (25, 31, 32):
        with pytest.raises(PreemptedError):
            run_marked(tmp_path, 30, 36, stop=lambda done, step=step: done == step)
    assert untimed(run_marked(tmp_path, 30, 36)) == untimed(results)
    assert_same_end(tmp_path, workdir, 60)


@pytest.mark.slow
def test_a_rise_without_end_stops_the_run(tmp_path):
    with pytest.raises(DivergedError, match=r"has risen since step .* went back 2 times"):
        run_marked(tmp_path, 30, 1000)


@pytest.mark.slow
def test_two_steps_are_a_spike_and_the_guard_lets_them_pass(tmp_path):
    assert run_marked(tmp_path, 30, 32)["rollbacks"] == []


class Told:
    """In the place of the step: the loss of each is told by its number, and the rate."""

    def __init__(self, loss):
        self.loss = loss

    def lower(self, *_):
        return self

    def compile(self):
        return self

    def __call__(self, state, batch):
        with jax.transfer_guard("allow"):
            loss = self.loss(int(state.step) + 1, float(state.rate))
            scalars = {name: np.float32(1.0) for name in ("gradient_norm", "valid", "infeasible")}
            scalars |= {"loss": np.float32(loss), "skipped": np.float32(np.isnan(loss))}
            nowhere = np.full(toy.ROWS, -1, np.int32)
            stepped = dataclasses.replace(state, step=state.step + 1)
            return stepped, StepReport(scalars, nowhere, nowhere)


@pytest.fixture
def run_told(monkeypatch, undiagnosed):
    """Runs whose steps do nothing but have the losses they are told."""

    def run_it(workdir, loss, guard, stop=loop.never, **training):
        monkeypatch.setattr(loop, "make_step", lambda *_: Told(loss))
        settings = {"steps": 40, "accumulate": 1, "log_every": 20, "eval_every": 40, "keep": 1}
        config = configuration(guard, **{**settings, **training})
        return run(workdir, config=config, evaluate=lambda params, stage: {"per": 0.5}, stop=stop)

    return run_it


def nan_once(*steps):
    """A loss that is NaN the first time each of these steps is made."""
    left = set(steps)

    def loss(step, rate):
        if step in left:
            left.remove(step)
            return np.nan
        return 1.0

    return loss


def places(results):
    return [(rollback["found"], rollback["to"]) for rollback in results["rollbacks"]]


@pytest.mark.slow
def test_it_goes_back_to_what_was_scheduled_then(tmp_path, run_told):
    guard = {"nonfinite_budget": 1}
    with pytest.raises(PreemptedError):
        run_told(tmp_path, nan_once(), guard, lambda done: done == 12, save_every=5)
    results = run_told(tmp_path, nan_once(13, 14), guard, save_every=7)
    assert places(results) == [(14, 10)]


@pytest.mark.slow
def test_skipped_steps_make_the_guard_look_back_further(tmp_path, run_told):
    def loss(step, rate):
        if rate < 1.0 or step <= 40:
            return 1.0
        if step % 2 == 0:
            return np.nan
        return 1.2 if step < 75 else 5.0  # half way up, then up

    guard = {"divergence": True, "window": 16, "rise": 1.3, "tries": 3, "lr_factor": 0.5}
    results = run_told(tmp_path, loss, guard, steps=90, eval_every=90, save_every=8)
    assert [(s["sound"], s["to"]) for s in results["rollbacks"]] == [(48, 48)]


@pytest.mark.slow
def test_a_damaged_checkpoint_sends_it_to_another_sound_one(tmp_path, run_told, capsys):
    guard = {"nonfinite_budget": 1, "tries": 1}
    with pytest.raises(PreemptedError):
        run_told(tmp_path, nan_once(), guard, lambda done: done == 17, save_every=8)

    def damage(done):
        if done == 18 and (tmp_path / "checkpoints/16").exists():
            (tmp_path / "checkpoints/16/manifest.json").unlink()
        return False

    results = run_told(tmp_path, nan_once(19, 20), guard, damage, save_every=8)
    assert places(results) == [(20, 17)]
    assert "set aside as 16.damaged" in capsys.readouterr().out


def test_where_none_is_sound_it_removes_nothing(tmp_path, run_told):
    def damage(done):
        if done == 18:
            for folder in (tmp_path / "checkpoints").iterdir():
                (folder / "manifest.json").unlink()
        return False

    guard = {"nonfinite_budget": 1, "tries": 1}
    with pytest.raises(CheckpointError, match="no sound checkpoint is left to go back to"):
        run_told(tmp_path, nan_once(19, 20), guard, damage, save_every=8)
    left = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert left == ["16.damaged", "8.damaged"]
    assert lines_of(tmp_path, "skipped")


@pytest.mark.slow
def test_before_the_first_scheduled_one_a_run_that_was_stopped_begins_again_too(tmp_path, run_told):
    guard = {"nonfinite_budget": 1, "tries": 1}
    straight = run_told(tmp_path / "straight", nan_once(5, 6), guard, save_every=8)
    with pytest.raises(PreemptedError):
        run_told(tmp_path / "run", nan_once(), guard, lambda done: done == 3, save_every=8)
    stopped = run_told(tmp_path / "run", nan_once(5, 6), guard, save_every=8)
    assert places(stopped) == places(straight) == [(6, 0)]
