import gc
import hashlib
import json
import shutil

import grain
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from configs import common
from modessm_jax.runs import checkpoints
from modessm_jax.runs.checkpoints import CheckpointError, load_weights
from modessm_jax.runtime.lock import BusyError, in_use
from modessm_jax.runtime.mesh import data_mesh
from modessm_jax.runtime.preemption import PreemptedError
from modessm_jax.training.loop import never, train
from tests import toy

pytestmark = pytest.mark.usefixtures("shared_programs")

TRAINING = dict(
    steps=10,
    accumulate=2,
    ema_decay=0.9,
    seed=5,
    log_every=3,
    eval_every=3,
    save_every=4,
    keep=2,
    select_by="per",
)


def configuration(guard=None, **training):
    return ConfigDict(
        {
            "optimizer": toy.OPTIMIZER,
            "objective": {"weights": {"phoneme": 1.0}, "normalize_by": "frames"},
            "training": {**TRAINING, **training},
            "guard": common.guard() | (guard or {}),
        }
    )


class Killed(Exception):
    pass


class Source:
    """Batches by number; `change` may spoil one, `end` kills the process that reads so far."""

    def __init__(self, change=None, end=None):
        self.change, self.end = change, end

    def __len__(self):
        return 1000

    def __getitem__(self, index):
        if index == self.end:
            raise Killed
        batch = toy.batch_of(index)
        if self.change is not None:
            self.change(index, batch)
        return batch


def evaluate(params, stage):
    """A figure that falls and rises again, so that the best is neither the first nor the last."""
    moved = float(
        jnp.abs(params["phoneme"]["kernel"] - toy.initial_params()["phoneme"]["kernel"]).mean()
    )
    return {"per": (moved - 0.015) ** 2, "moved": moved}


def run(
    workdir,
    *,
    config=None,
    evaluate=evaluate,
    trial_name="trial {}".format,
    stop=never,
    dataset="toy",
    apply=toy.apply,
    devices=2,
    **source,
):
    with in_use(workdir):
        return train(
            config or configuration(),
            workdir,
            apply=apply,
            params=jax.eval_shape(toy.initial_params),
            init=toy.initial_params,
            batches=iter(grain.MapDataset.source(Source(**source)).to_iter_dataset()),
            evaluate=evaluate,
            trial_name=trial_name,
            dataset={"name": dataset},
            augment=toy.augment,
            mesh=data_mesh(jax.devices()[:devices]),
            stop=stop,
        )


def fingerprint(workdir, step):
    """sha256 of the parameters and their average as saved after `step` updates."""
    weights = load_weights(workdir / "checkpoints", toy.initial_params(), step)
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves((weights.params, weights.ema)):
        digest.update(np.asarray(leaf).tobytes())
    return digest.hexdigest()


def untimed(results):
    return {k: v for k, v in results.items() if k not in ("seconds", "cpu_seconds", "input_stall")}


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """A run that was never interrupted, and its results."""
    workdir = tmp_path_factory.mktemp("straight")
    return workdir, run(workdir)


def test_leaves_everything_a_reader_needs(straight):
    workdir, results = straight
    names = {path.name for path in workdir.iterdir()}
    assert names == {
        "config.json",
        "dataset.json",
        "format.json",
        "run.lock",
        "seconds.json",
        "parameters.txt",
        "metrics.jsonl",
        "tensorboard",
        "checkpoints",
        "best",
        "results.json",
    }
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert [(line["step"], line["kind"]) for line in lines] == [
        (3, "train"),
        (3, "evaluation"),
        (6, "train"),
        (6, "evaluation"),
        (9, "train"),
        (9, "evaluation"),
        (10, "train"),
        (10, "evaluation"),
    ]
    np.testing.assert_allclose(lines[6]["learning_rate"], 1e-4, rtol=1e-6)
    assert lines[6]["loss"] < lines[0]["loss"]
    assert results == json.loads((workdir / "results.json").read_text())
    assert results["last"] == {k: v for k, v in lines[7].items() if k != "kind"}
    assert results["best"]["per"] == min(line["per"] for line in lines[1::2])
    assert results["seconds"]["compile"] > 0 and 0 <= results["input_stall"] < 1
    assert [path.name for path in (workdir / "best").iterdir()] == [str(results["best"]["step"])]
    assert "phoneme/kernel" in (workdir / "parameters.txt").read_text()


def test_same_seed_gives_the_same_bytes(straight, tmp_path):
    workdir, results = straight
    again = run(tmp_path / "again")
    record = (workdir / "metrics.jsonl").read_bytes()
    assert (tmp_path / "again" / "metrics.jsonl").read_bytes() == record
    assert fingerprint(tmp_path / "again", 10) == fingerprint(workdir, 10)
    assert untimed(again) == untimed(results)


def kill_at(step):
    calls = []

    def evaluate_or_die(params, stage):
        calls.append(params)
        if 3 * len(calls) == step:
            raise Killed
        return evaluate(params, stage)

    return evaluate_or_die


@pytest.mark.parametrize(
    "killed_by",
    [{"evaluate": kill_at(6)}, {"end": 7}, pytest.param({"end": 2}, marks=pytest.mark.slow)],
    ids=["evaluation", "after the best of no checkpoint", "before any checkpoint"],
)
def test_a_killed_run_goes_on_to_the_same_bits(straight, tmp_path, killed_by):
    workdir, results = straight
    # Grain hands the death of a reading thread on as it is.
    with pytest.raises(Killed):
        run(tmp_path, **killed_by)
    resumed = run(tmp_path)
    assert fingerprint(tmp_path, 10) == fingerprint(workdir, 10)
    assert (tmp_path / "metrics.jsonl").read_bytes() == (workdir / "metrics.jsonl").read_bytes()
    assert untimed(resumed) == untimed(results)
    assert [p.name for p in (tmp_path / "best").iterdir()] == [str(results["best"]["step"])]


# 5: between all; 6: before an evaluation; 8: where a checkpoint is due; 10: before the last one.
@pytest.mark.parametrize(
    "steps",
    [*(pytest.param([step], marks=pytest.mark.slow) for step in (5, 6, 8, 10)), [2, 6, 7, 10]],
)
def test_a_run_that_is_stopped_goes_on_to_the_same_bits(straight, tmp_path, steps):
    workdir, results = straight
    for step in steps:
        with pytest.raises(PreemptedError, match=f"ended early after step {step}, and saved"):
            run(tmp_path, stop=lambda done, step=step: done == step)
        assert load_weights(tmp_path / "checkpoints", toy.initial_params()).step == step
    resumed = run(tmp_path)
    assert fingerprint(tmp_path, 10) == fingerprint(workdir, 10)
    assert (tmp_path / "metrics.jsonl").read_bytes() == (workdir / "metrics.jsonl").read_bytes()
    assert untimed(resumed) == untimed(results)


@pytest.mark.slow
def test_an_evaluation_that_is_made_again_is_written_once(straight, tmp_path):
    with pytest.raises(PreemptedError):
        run(tmp_path, stop=lambda done: done == 6)  # and saved, before it could evaluate
    with pytest.raises(Killed):
        run(tmp_path, end=7)
    run(tmp_path)
    record = (straight[0] / "metrics.jsonl").read_bytes()
    assert (tmp_path / "metrics.jsonl").read_bytes() == record


def test_a_run_holds_one_state_and_nothing_else(tmp_path, monkeypatch):
    one = sum(leaf.nbytes for leaf in jax.tree.leaves(toy.initial_params()))
    others, held = {id(array): array for array in jax.live_arrays()}, {}

    def note(moment):
        sizes = [array.nbytes for array in jax.live_arrays() if id(array) not in others]
        held[moment] = sum(sizes) / one

    def stop(done):
        note(done)
        return done == 5

    def load(*args):
        note("reading")
        return read(*args)

    read = checkpoints.load
    monkeypatch.setattr(checkpoints, "load", load)
    for moments in (["reading", 0, 1, 2, 3, 4, 5], ["reading", 5]):
        with pytest.raises(PreemptedError):
            run(tmp_path, stop=stop, devices=1)
        assert list(held) == moments
        assert held.pop("reading") < 0.1  # beside what is read
        # Parameters, two moments and the average, and some counts.
        assert all(4.0 <= size < 4.1 for size in held.values()), held
        held.clear()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of Orbax
def test_a_path_that_loses_checkpoints_is_refused_before_the_first_step(tmp_path):
    with pytest.raises(CheckpointError, match="what is saved there is lost"):
        run(tmp_path / "a[b]", end=0)  # no batch can be drawn
    gc.collect()


def test_a_run_that_has_made_no_step_has_nothing_to_save(tmp_path):
    with pytest.raises(PreemptedError, match="after step 0"):
        run(tmp_path, stop=lambda done: True)
    assert not list((tmp_path / "checkpoints").iterdir())


@pytest.mark.parametrize("place", ["checkpoints/10/optimizer", "checkpoints/10/ema", "best/*/ema"])
def test_a_damaged_run_mends_itself_to_the_same_bits(straight, tmp_path, capsys, place):
    workdir = tmp_path / "copy"
    shutil.copytree(straight[0], workdir)
    (file,) = workdir.glob(f"{place}/d/*")
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 16
    file.write_bytes(content)
    again = run(workdir)
    said = capsys.readouterr().out
    assert f"is damaged: {place.split('/')[2]}/d/{file.name} has other content" in said
    assert fingerprint(workdir, 10) == fingerprint(straight[0], 10)
    record = (straight[0] / "metrics.jsonl").read_bytes()
    assert (workdir / "metrics.jsonl").read_bytes() == record
    if "best" in place:
        # Both checkpoints know the model that is lost; of the others only the last is still there.
        assert "of checkpoint 10, which was" in said and again["best"]["step"] == 10
        # A complete run does not save again, and yet that is so for good.
        assert run(workdir)["best"]["step"] == 10
        assert "is lost" not in capsys.readouterr().out
    else:
        assert "resuming after step 8" in said and untimed(again) == untimed(straight[1])


def test_a_run_without_a_sound_checkpoint_is_left_as_it_is(straight, tmp_path):
    workdir = tmp_path / "copy"
    shutil.copytree(straight[0], workdir)
    for checkpoint in (workdir / "checkpoints").iterdir():
        (checkpoint / "manifest.json").unlink()
    with pytest.raises(CheckpointError, match="no sound checkpoint is left"):
        run(workdir)
    with pytest.raises(CheckpointError, match=r"training.seed: 5 then, 6 now"):
        run(workdir, config=configuration(seed=6))
    for kept in ("metrics.jsonl", "results.json", "config.json"):
        assert (workdir / kept).read_bytes() == (straight[0] / kept).read_bytes()
    assert len(list((workdir / "checkpoints").iterdir())) == 2


@pytest.mark.slow
def test_a_second_run_in_the_same_place_is_refused(straight, tmp_path):
    refused = []

    def evaluate_and_try_again(params, stage):
        with pytest.raises(BusyError, match="is in use by process") as error:
            run(tmp_path)
        refused.append(error)
        return evaluate(params, stage)

    run(tmp_path, evaluate=evaluate_and_try_again)
    assert len(refused) == 4
    assert fingerprint(tmp_path, 10) == fingerprint(straight[0], 10)


def test_a_complete_run_says_so_and_sums_up_again(straight, tmp_path, capsys):
    workdir = tmp_path / "copy"
    shutil.copytree(straight[0], workdir)
    (workdir / "results.json").unlink()

    def never(params, stage):
        raise AssertionError("nothing is left to evaluate")

    assert untimed(run(workdir, evaluate=never, end=0)) == untimed(straight[1])
    assert "already complete: 10 steps" in capsys.readouterr().out
    assert (workdir / "results.json").exists()
    record = (workdir / "metrics.jsonl").read_bytes()
    assert record == (straight[0] / "metrics.jsonl").read_bytes()


def test_another_config_does_not_touch_the_run(straight):
    workdir, _ = straight
    before = (workdir / "config.json").read_bytes()
    with pytest.raises(CheckpointError, match=r"training.seed: 5 then, 6 now"):
        run(workdir, config=configuration(seed=6))
    with pytest.raises(CheckpointError, match=r"dataset.name: 'toy' then, 'other' now"):
        run(workdir, dataset="other")
    assert (workdir / "config.json").read_bytes() == before


@pytest.mark.slow
def test_work_that_a_killed_process_did_is_counted_as_lost(straight, tmp_path, capsys):
    with pytest.raises(Killed):
        run(tmp_path, end=7)  # saved after step 4
    noted = json.loads((tmp_path / "seconds.json").read_text())
    assert noted["lost"] == 0.0
    results = run(tmp_path)
    assert 0.0 < results["seconds"]["lost"] < noted["step"] + noted["input"] + noted["evaluation"]
    assert "lost 0:00:0" in capsys.readouterr().out.splitlines()[-1]


def test_infeasible_trials_are_named_once_and_no_transfer_is_implicit(tmp_path, capsys):
    def shorten(index, batch):
        batch.features.mask[1, 1:] = False
        batch.labels.mask[1] = True
        batch.trial[1] = 1

    results = run(tmp_path / "named", change=shorten)
    assert results["infeasible"] == ["trial 1"]
    assert capsys.readouterr().out.count("the labels of trial 1;") == 1
    record = (tmp_path / "named" / "metrics.jsonl").read_text().splitlines()
    assert json.loads(record[0])["infeasible"] == 3

    def careless(index):
        return f"trial {jax.jit(jnp.negative)(np.ones(3))[0]}"

    with pytest.raises(jax.errors.JaxRuntimeError, match="Disallowed host-to-device"):
        run(tmp_path / "careless", change=shorten, trial_name=careless)
