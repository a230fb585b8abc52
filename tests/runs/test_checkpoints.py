import dataclasses
import errno
import gc
import re
import resource
import shutil
from pathlib import Path

import grain
import jax
import numpy as np
import pytest
from orbax.checkpoint import v1 as ocp

from modessm_jax.runs import checkpoint_files
from modessm_jax.runs.checkpoint_files import steps_in
from modessm_jax.runs.checkpoints import CheckpointError, Checkpoints, load_weights
from modessm_jax.runs.history import History
from modessm_jax.runs.state import create_state, state_shapes
from modessm_jax.runtime.mesh import data_mesh
from tests.toy import initial_params, plan


def numbers():
    return iter(grain.MapDataset.source(range(100)).to_iter_dataset())


def state_at(step, *, ema=True, params=None):
    params = params or initial_params(step)
    state = create_state(params, plan(params=params).optimizer, data_mesh(), ema=ema)
    return dataclasses.replace(state, step=state.step + step)


def save_three(workdir, *, keep=2, ema=True):
    """Checkpoints after 2, 4 and 6 steps; the second is the best. Draws three numbers each."""
    batches, history = numbers(), History()
    checkpoints = Checkpoints(workdir, keep=keep)
    for step, per in ((2, 0.5), (4, 0.3), (6, 0.4)):
        for _ in range(3):
            next(batches)
        state = state_at(step, ema=ema)
        if history.evaluated(step, {"per": per}, "per"):
            checkpoints.save_best(step, state, history)
        checkpoints.save(step, state, batches, history)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """What `save_three` leaves; not to be changed."""
    workdir = tmp_path_factory.mktemp("saved")
    save_three(workdir)
    return workdir


@pytest.fixture
def workdir(saved, tmp_path):
    """A copy of it, to be changed."""
    return Path(shutil.copytree(saved, tmp_path / "run"))


def restore(workdir, *, keep=2):
    """The step restored, its history, and the next number; None where nothing is sound."""
    batches = numbers()
    restored = Checkpoints(workdir, keep=keep).restore(state_at(0), batches)
    if restored is None:
        return None
    state, history = restored
    assert_equal_trees(state, state_at(int(state.step)))
    return int(state.step), history, next(batches)


def flip(path, rng):
    """Flips one bit of a file."""
    content = bytearray(path.read_bytes())
    bit = rng.integers(8 * len(content))
    content[bit // 8] ^= 1 << (bit % 8)
    path.write_bytes(content)


def folders(path):
    return sorted(folder.name for folder in path.iterdir())


def assert_equal_trees(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_keeps_the_last_and_the_best_and_restores_all_of_it(saved):
    assert folders(saved / "checkpoints") == ["4", "6"]
    assert folders(saved / "best") == ["4"]
    batches = numbers()
    checkpoints = Checkpoints(saved, keep=2)
    assert steps_in(saved / "checkpoints") == [4, 6]
    restored = checkpoints.restore(state_at(0), batches)
    assert restored is not None
    state, history = restored
    assert_equal_trees(state, state_at(6))
    assert state.params["encoder"]["kernel"].sharding.device_set == set(jax.devices())
    assert next(batches) == 9
    assert history.best == {"step": 4, "per": 0.3}
    assert [record["step"] for record in history.evaluations] == [2, 4, 6]


def test_the_first_state_is_saved_and_read_back_and_nothing_is_left(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=2)
    read = checkpoints.try_out(lambda: state_at(0))
    assert_equal_trees(read, state_at(0))
    assert not checkpoints.begun and not folders(tmp_path / "checkpoints")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of Orbax
@pytest.mark.parametrize("name", ["a[b]", "[!a]", "a\\b"])
def test_a_path_that_orbax_cannot_read_is_refused(tmp_path, name):
    checkpoints = Checkpoints(tmp_path / name, keep=2)
    with pytest.raises(CheckpointError, match=r"is lost: .* without the characters \[, \] and"):
        checkpoints.try_out(lambda: state_at(0))
    assert not checkpoints.begun
    gc.collect()


@pytest.mark.parametrize(
    "name", ["a*b?", "{x,y}", "späß 日本", "a'b\"c#%20", "$HOME ~ | & ; = (x)"]
)
def test_any_other_path_will_do(tmp_path, name):
    Checkpoints(tmp_path / name, keep=2).try_out(lambda: state_at(0))


def test_a_disk_that_gives_other_numbers_is_refused(tmp_path, monkeypatch):
    read = Checkpoints._read

    def forgetful(self, *args):
        state, *rest = read(self, *args)
        ema = jax.tree.map(lambda x: 0 * x, state.ema)
        return dataclasses.replace(state, ema=ema), *rest

    monkeypatch.setattr(Checkpoints, "_read", forgetful)
    with pytest.raises(CheckpointError, match="the numbers are others"):
        Checkpoints(tmp_path, keep=2).try_out(lambda: state_at(0))


def test_shapes_are_enough_to_restore_into(saved):
    params = initial_params()
    shapes = state_shapes(params, plan(params=params).optimizer, data_mesh(), ema=True)
    restored = Checkpoints(saved, keep=2).restore(shapes, numbers())
    assert restored is not None
    assert_equal_trees(restored[0], state_at(6))


def test_a_best_model_stays_while_a_checkpoint_knows_it(workdir):
    checkpoints = Checkpoints(workdir, keep=2)
    restored = checkpoints.restore(state_at(0), numbers())
    assert restored is not None
    state, history = restored
    history.evaluated(8, {"per": 0.1}, "per")
    checkpoints.save_best(8, state, history)
    checkpoints.save(8, state, numbers(), history)
    assert folders(workdir / "checkpoints") == ["6", "8"]
    assert folders(workdir / "best") == ["4", "8"]
    checkpoints.save(10, state, numbers(), history)
    assert folders(workdir / "best") == ["8"]


def flipped(folder):
    flip(next((folder / "weights" / "d").iterdir()), np.random.default_rng(0))


def cut(folder):
    file = next((folder / "optimizer" / "d").iterdir())
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def deleted(folder):
    (folder / "history" / "_METADATA").unlink()


def without_manifest(folder):
    (folder / "manifest.json").unlink()


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (flipped, "weights/d/.* has other content than was written"),
        (cut, r"optimizer/d/.* has \d+ bytes, not \d+"),
        (deleted, "history/_METADATA is missing"),
        (without_manifest, "manifest.json, which is written last, is missing"),
    ],
)
def test_a_damaged_checkpoint_is_set_aside_for_the_one_before(workdir, capsys, damage, said):
    damage(workdir / "checkpoints" / "6")
    restored = restore(workdir)
    assert restored is not None
    step, history, number = restored
    assert (step, history.last_evaluated, number) == (4, 4, 6)
    (line,) = capsys.readouterr().out.splitlines()
    assert re.search(rf"checkpoints/6 is damaged: {said}.*; set aside as 6.damaged", line)
    assert folders(workdir / "checkpoints") == ["4", "6.damaged"]


def test_where_all_are_damaged_the_run_is_refused_and_nothing_is_deleted(workdir):
    (workdir / "checkpoints" / "6.damaged").mkdir()
    shutil.copytree(workdir / "best" / "4", workdir / "best" / "2")
    for folder in ("checkpoints/4", "checkpoints/6", "best/2"):
        without_manifest(workdir / folder)
    said = (
        r"no sound checkpoint is left; set aside as damaged: 4.damaged, 6.damaged, 6.damaged-2\. "
        r"Sound models in .*best: 4\. To go on, put a sound copy .* choose a new workdir"
    )
    for _ in range(2):  # the second time there is nothing but what has been set aside
        assert Checkpoints(workdir, keep=2).begun
        with pytest.raises(CheckpointError, match=said):
            restore(workdir)
        assert folders(workdir / "checkpoints") == ["4.damaged", "6.damaged", "6.damaged-2"]
        assert folders(workdir / "best") == ["2", "4"]


def test_where_nothing_was_saved_there_is_nothing_to_restore(tmp_path):
    assert not Checkpoints(tmp_path, keep=1).begun
    assert restore(tmp_path) is None


@pytest.mark.parametrize("folder", ["checkpoints/6", "best/4"])
def test_a_disk_that_cannot_be_read_changes_nothing(workdir, monkeypatch, capsys, folder):
    def fails(path, *arguments, method=Path.open, **options):
        if path.is_relative_to(workdir / folder):
            raise OSError(errno.EIO, "Input/output error", str(path))
        return method(path, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", fails)
        for call in (restore, lambda _: load_weights(workdir / folder.split("/")[0], None)):
            with pytest.raises(CheckpointError, match=rf"{folder} cannot be read .*Input/output"):
                call(workdir)
    assert capsys.readouterr().out == ""
    restored = restore(workdir)
    assert restored is not None and restored[1].best is not None
    assert restored[0] == 6 and restored[1].best["step"] == 4


@pytest.mark.slow
def test_a_run_that_goes_back_finds_a_scheduled_checkpoint_first(tmp_path):
    for step, scheduled in ((2, True), (3, False), (4, False), (6, True)):
        Checkpoints(tmp_path, keep=9).save(
            step, state_at(step), numbers(), History(), scheduled=scheduled
        )
    for damaged, until, expected in ((None, 6, 6), (None, 5, 2), (2, 5, 4), (4, 5, 3)):
        if damaged:
            deleted(tmp_path / "checkpoints" / str(damaged))
        restored = Checkpoints(tmp_path, keep=9).restore(state_at(0), numbers(), until=until)
        assert restored is not None and int(restored[0].step) == expected
    deleted(tmp_path / "checkpoints" / "3")
    with pytest.raises(CheckpointError, match="is left to go back to, of step 5 or earlier"):
        Checkpoints(tmp_path, keep=9).restore(state_at(0), numbers(), until=5)
    assert folders(tmp_path / "checkpoints") == ["2.damaged", "3.damaged", "4.damaged", "6"]


def test_a_damaged_best_model_is_refused_by_name(workdir):
    flipped(workdir / "best" / "4")
    with pytest.raises(CheckpointError, match=r"best/4 is damaged: weights/d/.* other content"):
        load_weights(workdir / "best", initial_params())


def test_a_lost_best_model_is_brought_back_by_its_checkpoint(workdir, capsys):
    flipped(workdir / "best" / "4")
    restored = restore(workdir)
    assert restored is not None
    assert restored[0] == 6 and restored[1].best == {"step": 4, "per": 0.3}
    assert folders(workdir / "best") == ["4", "4.damaged"]
    assert_equal_trees(load_weights(workdir / "best", initial_params()).params, initial_params(4))
    said = capsys.readouterr().out
    assert "best/4 is damaged" in said
    assert (
        "the best model of checkpoint 4, which was that of step 4, is lost; its own takes" in said
    )


@pytest.mark.slow
def test_another_takes_the_place_of_a_lost_best_model_once(tmp_path, capsys):
    checkpoints, history = Checkpoints(tmp_path, keep=3), History()
    for step, per in ((2, 0.3), (4, 0.5), (6, 0.4)):
        if history.evaluated(step, {"per": per}, "per"):
            checkpoints.save_best(step, state_at(step), history)
        if step > 2:
            checkpoints.save(step, state_at(step), numbers(), history, scheduled=step == 4)
    checkpoints.save(7, state_at(7), numbers(), history)  # not evaluated
    flipped(tmp_path / "best" / "2")
    for said in (3, 0):
        restored = restore(tmp_path, keep=3)
        assert restored is not None and restored[0] == 7 and restored[1].best is None
        assert capsys.readouterr().out.count("takes its place") == said
    facts = [checkpoint_files.verify(tmp_path / "checkpoints" / step) for step in "467"]
    assert [known["best"] and known["best"]["step"] for known in facts] == [4, 6, None]
    assert [known["scheduled"] for known in facts] == [True, False, True]
    assert folders(tmp_path / "best") == ["2.damaged", "4", "6"]


def test_an_earlier_checkpoint_with_its_best_goes_before_a_later_one_without(tmp_path):
    checkpoints, history = Checkpoints(tmp_path, keep=2), History()
    for step, per in ((2, 0.5), (4, 0.3)):
        history.evaluated(step, {"per": per}, "per")
        checkpoints.save_best(step, state_at(step), history)
        checkpoints.save(step, state_at(step), numbers(), history)
    shutil.rmtree(tmp_path / "best" / "4")
    for _ in range(2):  # whenever it is restarted
        restored = restore(tmp_path)
        assert restored is not None
        assert restored[0] == 2 and restored[1].best == {"step": 2, "per": 0.5}
    # On its way it takes nothing away that it still needs, even if it keeps one checkpoint only.
    checkpoints = Checkpoints(tmp_path, keep=1)
    again = checkpoints.restore(state_at(0), numbers())
    assert again is not None
    checkpoints.save(3, state_at(3), numbers(), again[1])
    assert folders(tmp_path / "checkpoints") == ["3", "4"]


class Killed(BaseException):
    pass


REMOVE = shutil.rmtree


def dies_at(method, number):
    """The method, dead at its call of this number."""
    calls = []

    def maybe(*arguments, **options):
        calls.append(1)
        if len(calls) == number:
            if method is REMOVE:  # in the middle of it
                next(path for path in Path(arguments[0]).rglob("*") if path.is_file()).unlink()
            raise Killed
        return method(*arguments, **options)

    return maybe


@pytest.mark.parametrize(
    ("step", "owner", "name", "number"),
    [
        (8, checkpoint_files, "seal", 1),
        (6, checkpoint_files, "write_json", 1),
        (6, Path, "rename", 1),  # the one there makes way
        (6, Path, "rename", 2),  # the new one takes its name
        (8, Path, "rename", 1),
        (6, shutil, "rmtree", 1),  # the one there
        (8, shutil, "rmtree", 1),  # older checkpoints
        (8, shutil, "rmtree", 2),
        (8, shutil, "rmtree", 3),  # a model that none of them knows
    ],
)
def test_a_death_while_saving_costs_no_checkpoint(
    workdir, monkeypatch, capsys, step, owner, name, number
):
    """Over a checkpoint of the same step (a run that ended early), and as a new one."""
    checkpoints = Checkpoints(workdir, keep=1)
    restored = checkpoints.restore(state_at(0), numbers())
    assert restored is not None
    with monkeypatch.context() as patch, pytest.raises(Killed):
        # All those there may go: the model known as the best is now that of step 2.
        checkpoints.save_best(2, state_at(2), History())
        best = {"step": 2.0, "per": 0.1} if step == 8 else restored[1].best
        history = dataclasses.replace(restored[1], best=best)
        patch.setattr(owner, name, dies_at(getattr(owner, name), number))
        checkpoints.save(step, state_at(step), numbers(), history)
    capsys.readouterr()
    again = restore(workdir)
    assert again is not None and again[0] in (6, step)
    assert "damaged" not in capsys.readouterr().out
    for place in ("checkpoints", "best"):
        assert all(folder.isdigit() for folder in folders(workdir / place))


def test_a_save_cut_short_by_orbax_leaves_nothing_behind(workdir, monkeypatch, capsys):
    def begins(path, parts, **options):
        (Path(path + ".orbax-checkpoint-tmp") / "weights").mkdir(parents=True)
        raise Killed

    checkpoints = Checkpoints(workdir, keep=2)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(ocp, "save_checkpointables", begins)
        checkpoints.save(8, state_at(8), numbers(), History())
    assert restore(workdir) is not None
    assert "8.partial.orbax-checkpoint-tmp was never completed; removed" in capsys.readouterr().out
    assert folders(workdir / "checkpoints") == ["4", "6"]


# Orbax leaves writes unfinished when one of them fails; what their finalisers say ends here.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_disk_that_takes_no_more_costs_no_checkpoint(workdir):
    """Real failures of real writes, by a limit on the size of files."""
    checkpoints = Checkpoints(workdir, keep=1)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (800, hard))
    try:
        with pytest.raises(CheckpointError, match=r"8 could not be saved .*\(steps: 4, 6\); make"):
            checkpoints.save(8, state_at(8), numbers(), History())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    gc.collect()
    restored = restore(workdir)
    assert restored is not None and restored[0] == 6
    assert [name for name in folders(workdir / "checkpoints") if name.isdigit()] == ["4", "6"]


@pytest.mark.parametrize("call", ["save", "save_best"])
def test_a_full_disk_is_named(workdir, monkeypatch, call):
    def fails(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    checkpoints = Checkpoints(workdir, keep=1)
    monkeypatch.setattr(checkpoint_files, "seal", fails)
    with pytest.raises(CheckpointError, match=r"No space left on device.*make room"):
        if call == "save":
            checkpoints.save(8, state_at(8), numbers(), History())
        else:
            checkpoints.save_best(8, state_at(8), History())
    assert folders(workdir / "checkpoints") == ["4", "6"]
    assert folders(workdir / "best") == ["4"]


def test_an_empty_directory_is_named(tmp_path):
    with pytest.raises(CheckpointError, match="no checkpoint here"):
        load_weights(tmp_path / "best", initial_params())
    with pytest.raises(ValueError, match=r"training.keep is 0"):
        Checkpoints(tmp_path, keep=0)
