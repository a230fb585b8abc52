"""A run in stages: what each trains, when it ends, and that a run killed in any of them goes on."""

import hashlib
import json
import math
from typing import Any

import grain
import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from configs import common
from modessm_jax.runs.checkpoints import load_weights
from modessm_jax.runtime.lock import in_use
from modessm_jax.runtime.mesh import data_mesh
from modessm_jax.training.loop import train
from modessm_jax.training.stages import groups, plan_stages, read_stages, trained
from tests import toy

pytestmark = pytest.mark.usefixtures("shared_programs")

ADAMW = dict(clip_norm=1.0, weight_decay=1e-2, b1=0.9, b2=0.99, eps=1e-8)
RATES = dict(peak_lr=1e-2, end_lr=1e-4, warmup_steps=1)
STAGES: dict[str, Any] = {
    "order": ("warmup", "joint", "rest"),
    "warmup": {"steps": 5, "weights": {"phoneme": 1.0}, "freezes": ("interctc/*",), **RATES},
    "joint": {
        "steps": 4,
        "weights": {"phoneme": 0.3, "interctc": 1.0},
        "freezes": ("session/*",),
        **RATES,
    },
    "rest": {
        "steps": 6,
        "weights": {"phoneme": 1.0},
        "trains": ("p*", "session/*", "mask/*", "interctc/*"),
        "freezes": ("*ctc/*",),
        **RATES,
    },
}


def configuration(**changes):
    training = dict(
        accumulate=1, ema_decay=0.9, seed=5, log_every=4, eval_every=3, save_every=2, keep=20,
    )  # fmt: skip
    return ConfigDict(
        {
            "optimizer": ADAMW,
            "objective": {"normalize_by": "frames"},
            "training": training,
            "guard": common.guard(),
            "stages": {**STAGES, **changes},
        }
    )


class Killed(Exception):
    pass


class Source:
    def __init__(self, end=None):
        self.end = end

    def __len__(self):
        return 1000

    def __getitem__(self, index):
        if index == self.end:
            raise Killed
        return toy.batch_of(index)


def run(workdir, config=None, evaluate=lambda params, stage: {"per": 0.5}, **source):
    with in_use(workdir):
        return train(
            configuration() if config is None else config,
            workdir,
            apply=toy.apply,
            params=jax.eval_shape(toy.initial_params),
            init=toy.initial_params,
            batches=iter(grain.MapDataset.source(Source(**source)).to_iter_dataset()),
            evaluate=evaluate,
            trial_name=str,
            dataset={},
            augment=toy.augment,
            mesh=data_mesh(jax.devices()[:1]),
        )


def weights(workdir, step):
    return load_weights(workdir / "checkpoints", toy.initial_params(), step)


def fingerprint(workdir, step):
    digest = hashlib.sha256((workdir / "metrics.jsonl").read_bytes())
    found = weights(workdir, step)
    for leaf in jax.tree.leaves((found.params, found.ema)):
        digest.update(np.asarray(leaf).tobytes())
    return digest.hexdigest()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("whole")
    return workdir, run(workdir)


def changed(before, after):
    """The top-level parts of the parameters that differ."""
    return {
        name
        for name in before
        if any(
            np.any(np.asarray(a) != np.asarray(b))
            for a, b in zip(
                jax.tree.leaves(before[name]), jax.tree.leaves(after[name]), strict=True
            )
        )
    }


def test_each_stage_changes_what_it_trains_and_nothing_else(whole):
    workdir, results = whole
    assert [(s["name"], s["begun"], s["end"]["step"]) for s in results["stages"]] == [
        ("warmup", 0, 5), ("joint", 5, 9), ("rest", 9, 15),
    ]  # fmt: skip
    assert results["steps"] == 15
    initial = toy.initial_params()
    first, second, third = (weights(workdir, step) for step in (5, 9, 15))
    everything = set(initial)
    assert changed(initial, first.params) == everything - {"interctc"}
    assert changed(first.params, second.params) == everything - {"session"}
    assert changed(second.params, third.params) == {"phoneme", "session", "mask"}
    assert changed(second.ema, third.ema) == {"phoneme", "session", "mask"}


def test_every_stage_has_an_average_of_its_own(whole):
    workdir, _ = whole
    before, after = (weights(workdir, step) for step in (5, 6))
    # After one update of a stage the new parameters weigh 9/11, those that it brought in included.
    for name in ("interctc", "phoneme"):
        old, new, mean = (tree[name]["kernel"] for tree in (before.ema, after.params, after.ema))
        np.testing.assert_allclose(mean, 2 / 11 * old + 9 / 11 * new, rtol=1e-5, atol=1e-7)


def test_every_stage_has_a_schedule_of_its_own_from_its_own_start(whole):
    workdir, _ = whole
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    train_lines = {line["step"]: line for line in lines if line["kind"] == "train"}
    plans = plan_stages(json.loads(configuration().to_json()), toy.initial_params())
    # A line's rate is the mean over the steps since the last: here that of one stage alone.
    np.testing.assert_allclose(train_lines[5]["learning_rate"], plans[0].schedule(4), rtol=1e-6)
    of_joint = [float(np.asarray(plans[1].schedule(step))) for step in range(3)]
    np.testing.assert_allclose(train_lines[8]["learning_rate"], np.mean(of_joint), rtol=1e-6)
    assert "loss/interctc" in train_lines[9] and "loss/interctc" not in train_lines[12]


@pytest.mark.parametrize(
    "end", [pytest.param(step, marks=pytest.mark.slow) for step in (2, 5, 7, 9, 13)]
)
def test_a_run_killed_in_any_stage_ends_as_one_that_was_not(whole, tmp_path, end):
    with pytest.raises(Killed):
        run(tmp_path, end=end)
    run(tmp_path)
    assert fingerprint(tmp_path, 15) == fingerprint(whole[0], 15)


@pytest.mark.slow
def test_a_stage_ends_when_it_stops_getting_better(tmp_path):
    rates = iter([0.9, 0.5, 0.6, 0.7, 0.3, 0.2, 0.1, 0.05, 0.01, 0.01, 0.01])
    warmup = {**STAGES["warmup"], "steps": 50, "patience": 2}
    results = run(
        tmp_path, configuration(warmup=warmup), evaluate=lambda params, stage: {"per": next(rates)}
    )
    # The evaluations after steps 9 and 12 are worse than that after step 6.
    assert [s["begun"] for s in results["stages"]] == [0, 12, 16]
    assert results["steps"] == 22


def test_groups_are_the_stages_that_train_a_parameter():
    params = toy.initial_params()
    found = groups(params, read_stages(json.loads(configuration().to_json())))
    assert found["interctc"]["kernel"] == "joint"
    assert found["session"]["offset"] == "warmup+rest"
    assert found["phoneme"]["kernel"] == "warmup+joint+rest"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"order": ("warmup", "wrong")}, "name some of"),
        ({"order": ()}, "name some of"),
        ({"warmup": {**STAGES["warmup"], "freezes": ("decoder/*",)}}, "matches no parameter"),
        ({"warmup": {**STAGES["warmup"], "trains": ("decoder/*",)}}, r"warmup\.trains: 'decoder"),
        ({"warmup": {**STAGES["warmup"], "colour": 1}}, r"config\.stages\.warmup"),
        ({"warmup": {**STAGES["warmup"], "steps": 0}}, "stage warmup has steps = 0"),
        ({"order": ("a+b",), "a+b": STAGES["warmup"]}, r"a\+b: a stage's name cannot hold"),
        ({"warmup": {**STAGES["warmup"], "warmup_steps": 9}}, "stage warmup: warmup_steps is 9"),
        ({"warmup": {**STAGES["warmup"], "weights": {"phoneme": -1.0}}}, "of phoneme is -1.0; an"),
        ({"warmup": {**STAGES["warmup"], "weights": {"phoneme": math.nan}}}, "phoneme is nan"),
    ],
)
def test_stages_that_make_no_sense_are_refused(changes, message):
    config = json.loads(configuration(**changes).to_json())
    with pytest.raises(ValueError, match=message):
        plan_stages(config, toy.initial_params())


def test_what_the_model_cannot_be_charged_later_is_said_before_the_first_update(tmp_path):
    joint = {**STAGES["joint"], "weights": {"phoneme": 1.0, "diphone": 0.3}}
    with pytest.raises(ValueError, match=r"stage joint: objective\.weights names 'diphone'"):
        run(tmp_path, configuration(joint=joint))
    assert not list((tmp_path / "checkpoints").iterdir())


def test_what_each_stage_says_for_itself_may_not_be_said_for_all():
    config = json.loads(configuration().to_json())
    config["training"] |= {"steps": 10, "select_by": "per"}
    with pytest.raises(ValueError, match=r"training\.steps, training\.select_by: with stages"):
        read_stages(config)


def test_without_stages_there_is_one_that_trains_everything():
    plan = toy.plan()
    assert (plan.stage.name, plan.stage.steps) == ("main", 10)
    assert all(jax.tree.leaves(trained(toy.initial_params(), plan.stage)))
