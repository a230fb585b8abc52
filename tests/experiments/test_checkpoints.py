"""The command line that looks after checkpoints; in this process, but for its exit."""

import gc
import shutil
from pathlib import Path

import numpy as np
import optax
import pytest

from experiments.checkpoints import main
from modessm_jax.runs.checkpoints import Checkpoints
from modessm_jax.runs.history import History
from modessm_jax.runs.state import create_state
from modessm_jax.runtime.files import write_json
from modessm_jax.runtime.mesh import data_mesh
from tests.runs.test_checkpoints import numbers
from tests.toy import initial_params


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    workdir = tmp_path_factory.mktemp("saved")
    write_json(workdir / "config.json", {})
    write_json(workdir / "dataset.json", {"sessions": ["a"]})
    checkpoints, history = Checkpoints(workdir, keep=2), History()
    state = create_state(initial_params(), optax.sgd(0.1), data_mesh(), ema=False)
    checkpoints.save(10, state, numbers(), history)
    history.evaluated(20, {"per": 0.5}, "per")
    checkpoints.save_best(20, state, history)
    checkpoints.save(20, state, numbers(), history)
    return workdir


@pytest.fixture
def workdir(saved, tmp_path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "run"))


def test_sound_checkpoints(saved, capsys):
    main(["verify", str(saved)])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["checkpoints/10", "checkpoints/20", "best/20"]
    assert all(line.split()[1] == "sound:" for line in lines)
    main(["list", str(saved)])
    lines = capsys.readouterr().out.splitlines()
    assert "none evaluated yet" in lines[0] and "best model: step 20" in lines[1]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of Orbax
def test_what_cannot_be_read_back_is_found_if_asked_for(saved, tmp_path, capsys):
    main(["verify", "--deep", str(saved)])
    assert capsys.readouterr().out.count("sound:") == 3
    workdir = tmp_path / "a[b]"  # Orbax writes there what it cannot read
    state = create_state(initial_params(), optax.sgd(0.1), data_mesh(), ema=False)
    Checkpoints(workdir, keep=2).save(10, state, numbers(), History())
    main(["verify", str(workdir)])
    assert "sound: " in capsys.readouterr().out
    with pytest.raises(SystemExit, match="1 of 1 damaged, unreadable or missing"):
        main(["verify", "--deep", str(workdir)])
    assert "checkpoints/10          cannot be read: " in capsys.readouterr().out
    gc.collect()


def test_damage_is_named_and_changes_the_exit_status(workdir, capsys):
    file = next((workdir / "checkpoints" / "20" / "weights" / "d").iterdir())
    file.write_bytes(file.read_bytes()[:-1])
    (workdir / "checkpoints" / "5.damaged").mkdir()
    with pytest.raises(SystemExit, match="1 of 3 damaged"):
        main(["verify", str(workdir)])
    assert f"damaged: weights/d/{file.name} has" in capsys.readouterr().out
    main(["list", str(workdir)])  # reads manifests alone
    assert "checkpoints/5.damaged   set aside" in capsys.readouterr().out
    (workdir / "best" / "20" / "manifest.json").unlink()
    with pytest.raises(SystemExit, match="1 of 3 damaged"):
        main(["list", str(workdir)])
    with pytest.raises(SystemExit, match=r"best/20 is damaged: manifest\.json"):
        main(["export", str(workdir), "--out", str(workdir / "model.npz")])
    assert not (workdir / "model.npz").exists()


def test_a_best_model_that_is_gone_is_missed(workdir, capsys):
    shutil.rmtree(workdir / "best" / "20")
    for job in ("verify", "list"):
        with pytest.raises(SystemExit, match="1 of 3 damaged, unreadable or missing"):
            main([job, str(workdir)])
        assert "best/20                 missing: the best model" in capsys.readouterr().out


def test_export(saved, tmp_path, capsys):
    main(["export", str(saved), "--out", str(tmp_path / "m.npz"), "--step", "10"])
    assert "the model of step 10" in capsys.readouterr().out
    with np.load(tmp_path / "m.npz") as arrays:
        np.testing.assert_array_equal(
            arrays["phoneme/kernel"], initial_params()["phoneme"]["kernel"]
        )


def test_a_model_that_cannot_be_written_is_named(saved, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit, match="file"):
        main(["export", str(saved), "--out", str(tmp_path / "file" / "m.npz")])


def test_a_folder_without_checkpoints_and_help(tmp_path, capsys):
    with pytest.raises(SystemExit, match="no checkpoint here"):
        main(["verify", str(tmp_path)])
    with pytest.raises(SystemExit) as end:
        main(["--help"])
    assert end.value.code == 0
    shown = capsys.readouterr().out
    assert "export RUN --out model.npz" in shown and "status 1" in shown
