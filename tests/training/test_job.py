"""The main job, whole: real model, files in the T15 layout, a run's folder."""

import hashlib
import json
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from configs import modessm
from configs.gru import get_config
from modessm_jax.data.validation import DataError
from modessm_jax.language.lexicon import build_lexicon
from modessm_jax.runs.checkpoints import CheckpointError
from modessm_jax.runs.load import load_run
from modessm_jax.runtime import watchdog
from modessm_jax.runtime.compile_cache import compile_cache
from modessm_jax.runtime.preemption import PreemptedError, Preemption
from modessm_jax.training import job, loop
from tests.data.layout import write_split

TINY = {
    "data": {"batch_size": 8, "buckets": 1, "memory_gib": 1.0, "sessions_per_batch": 0},
    "augment": {"white_noise": 0.1, "time_masks": 2, "random_cut": 1},
    "model": {"d": 8, "layers": 1, "patch": 4, "dropout": 0.1},  # compiles in seconds
    "optimizer": {"warmup_steps": 1},
    "training": {"steps": 4, "log_every": 1, "eval_every": 2, "save_every": 2, "ema_decay": 0.9},
}


@pytest.fixture(scope="module", autouse=True)
def shared_programs(tmp_path_factory):
    with compile_cache(tmp_path_factory.mktemp("programs")):
        yield


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("data")
    for session in ("a", "b"):
        write_split(root, session, "train", [40, 44, 36, 48])
        write_split(root, session, "val", [40, 44])
    build_lexicon(["a", "one"]).write(root / "lexicon.txt")
    return root


def config_of(root: Path, **changes: Any) -> ConfigDict:
    config = get_config("small")
    config.update(TINY)
    config.update({"data": {"root": str(root), "lexicon": str(root / "lexicon.txt")}})
    config.update(changes)
    return config


@pytest.fixture(scope="module")
def straight(root, tmp_path_factory) -> Path:
    workdir = tmp_path_factory.mktemp("straight")
    job.run(config_of(root), workdir)
    return workdir


def digest(workdir: Path) -> str:
    sha = hashlib.sha256()
    for leaf in jax.tree.leaves(load_run(workdir).params):
        sha.update(np.asarray(leaf).tobytes())
    return sha.hexdigest()


def test_what_a_run_leaves(straight: Path) -> None:
    results = json.loads((straight / "results.json").read_text())
    assert {"val", "parameters", "steps", "wall_seconds", "config", "input_stall"} <= set(results)
    assert {"per", "per_no_silence", "nats_per_label", "trials"} <= set(results["val"])
    assert results["val"]["trials"] == 4 and results["steps"] == 4
    saved = json.loads((straight / "config.json").read_text())
    assert saved["model"]["patch"] == 4
    lines = [json.loads(line) for line in (straight / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "learning_rate" in line] == [1, 2, 3, 4]
    assert [line["step"] for line in lines if "per" in line] == [2, 4]
    assert [line["step"] for line in lines if line.get("wer", -1.0) >= 0.0] == [2, 4]
    for name in ("dataset.json", "parameters.txt", "report.png", "checkpoints", "best"):
        assert (straight / name).exists(), name


def test_the_minutes_of_a_run_are_all_of_them_however_often_it_is_run(straight: Path) -> None:
    before = json.loads((straight / "results.json").read_text())
    job.run(config_of(Path(before["config"]["data"]["root"])), straight)
    again = json.loads((straight / "results.json").read_text())
    spent = sum(before["seconds"].values())
    assert spent > before["seconds"]["compile"] > 0
    assert min(before["wall_seconds"], again["wall_seconds"]) >= spent


@pytest.mark.slow
def test_the_largest_batch_is_compiled_first_where_a_device_tells_its_memory(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(loop, "memory_limit", lambda: 2**30)
    job.run(config_of(root, data={"batch_size": 4, "buckets": 2}), tmp_path)
    told = [line for line in capsys.readouterr().out.splitlines() if "a step of" in line]
    assert ["4 trials of 48 bins" in line for line in told] == [True, False]
    assert all("of 1.0 GiB of the device's memory" in line for line in told)


def test_val_of_other_channels_is_refused_before_training(root: Path, tmp_path: Path) -> None:
    train, val = (tmp_path / "data" / "a" / f"data_{split}.hdf5" for split in ("train", "val"))
    shutil.copytree(root / "a", train.parent)
    val.unlink()
    write_split(tmp_path / "data", "a", "val", [40], channels=5)
    with pytest.raises(DataError, match=r"data_val\.hdf5, trial_0000, .*has 5 channels, but the"):
        job.run(config_of(tmp_path / "data", data={"lexicon": ""}), tmp_path / "run")


def test_a_trial_that_nobody_recorded_cannot_be_left_out(root: Path, tmp_path: Path) -> None:
    config = config_of(root)
    names = ("a/1/0", "a/1/99")
    config.update({"data": {"exclude": names}})
    with pytest.raises(ValueError, match=r"data\.exclude: neither train nor val has a/1/99"):
        job.run(config, tmp_path)
    assert config.to_dict()["data"]["exclude"] == names


def test_a_rate_that_is_not_measured_is_refused_at_once(root: Path, tmp_path: Path) -> None:
    config = config_of(root, training={"select_by": "rnnt_per"})
    with pytest.raises(ValueError, match=r"training.select_by is 'rnnt_per'; choose one of per"):
        job.run(config, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["run.lock"]


@pytest.mark.slow
def test_the_flow_stage_shows_and_selects_what_its_bridge_mends(root: Path, tmp_path: Path) -> None:
    config = modessm.get_config("small")
    config.update({name: TINY[name] for name in ("data", "augment")})
    sizes = {"gate": 4, "d": 8, "layers": 2, "heads": 2, "state": 4, "joint": 8}
    config.update({"data": {"root": str(root)}, "model": sizes, "training": {"eval_every": 2}})
    order = ("transducer", "flow")
    steps = {name: {"steps": 3, "warmup_steps": 1} for name in order}
    config.update({"stages": {"order": order, **steps}})
    before, after = (stage["end"] for stage in job.run(config, tmp_path)["stages"])
    assert "mended_per" not in before
    assert {"damaged_per", "mended_per", "damaged_rnnt_per", "mended_rnnt_per"} < set(after)
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["select_by"] == "mended_rnnt_per"


def test_words_to_select_by_must_be_known(root: Path, tmp_path: Path) -> None:
    config = config_of(root, training={"select_by": "wer"}, data={"lexicon": ""})
    with pytest.raises(ValueError, match=r"training.select_by is 'wer'.*give a lexicon"):
        job.run(config, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["run.lock"]


@pytest.mark.slow
def test_stopped_between_checkpoints_and_run_again(
    root: Path, straight: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = job.evaluate, []

    def dies_the_second_time(*arguments, **options):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*arguments, **options)

    monkeypatch.setattr(job, "evaluate", dies_the_second_time)
    # Saved after step 3 and killed in the evaluation after step 4: step 4 is done again.
    changes = {"training": {"save_every": 3}}
    with pytest.raises(KeyboardInterrupt):
        job.run(config_of(root, **changes), tmp_path)
    monkeypatch.undo()
    job.run(config_of(root, **changes), tmp_path)
    assert digest(tmp_path) == digest(straight)
    logs = [(place / "metrics.jsonl").read_text() for place in (tmp_path, straight)]
    assert logs[0] == logs[1]


@pytest.mark.slow
def test_stopped_by_a_signal_and_run_again(root: Path, straight: Path, tmp_path: Path) -> None:
    with Preemption() as preemption:

        def ask_at_three(step: int) -> bool:
            if step == 3:
                signal.raise_signal(signal.SIGTERM)
                time.sleep(0.5)  # for the listener; else the run makes a step more, or two
            return preemption.reached(step)

        with pytest.raises(PreemptedError, match="after step 3, and saved"):
            job.run(config_of(root), tmp_path, stop=ask_at_three)
    job.run(config_of(root), tmp_path)
    assert digest(tmp_path) == digest(straight)
    logs = [(place / "metrics.jsonl").read_text() for place in (tmp_path, straight)]
    assert logs[0] == logs[1]


@pytest.mark.slow
def test_same_seed_same_run_and_another_seed_another(
    root: Path, straight: Path, tmp_path: Path
) -> None:
    job.run(config_of(root), tmp_path / "same")
    assert digest(tmp_path / "same") == digest(straight)
    same, first = ((d / "metrics.jsonl").read_text() for d in (tmp_path / "same", straight))
    assert same == first
    job.run(config_of(root, training={"seed": 1}), tmp_path / "other")
    assert digest(tmp_path / "other") != digest(straight)


def test_data_and_config_that_do_not_fit(root: Path, straight: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"experiments\.simulate"):
        job.run(config_of(tmp_path / "nowhere"), tmp_path / "run")
    config = config_of(root, augment={"whitenoise": 1.0})
    with pytest.raises(ValueError, match="whitenoise"):
        job.run(config, tmp_path / "run")
    with pytest.raises(CheckpointError, match="dropout"):
        job.run(config_of(root, model={"dropout": 0.2}), straight)
    grown = Path(shutil.copytree(root, tmp_path / "grown"))
    (grown / "b" / "data_val.hdf5").unlink()
    write_split(grown, "b", "val", [40, 44, 48])
    shutil.copytree(straight, tmp_path / "run", dirs_exist_ok=True)
    with pytest.raises(CheckpointError, match=r"dataset.trials.val.b: '2 trials, 84 bins, "):
        job.run(config_of(root, data={"root": str(grown)}), tmp_path / "run")


@pytest.mark.slow
def test_reading_and_the_last_scoring_are_watched_for_hangs(
    root: Path, straight: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    for name in ("read_splits", "evaluate", "write_report"):
        real = getattr(job, name)

        def noted(*args: Any, name: str = name, real: Any = real, **further: Any) -> Any:
            seen.append((name, bool(watchdog._entered)))
            return real(*args, **further)

        monkeypatch.setattr(job, name, noted)
    job.run(config_of(root), Path(shutil.copytree(straight, tmp_path / "run")))
    expected = ["read_splits", "evaluate", "write_report"]
    assert seen == [(name, True) for name in expected]


@pytest.mark.slow
def test_a_run_goes_on_where_its_data_have_moved(
    root: Path, straight: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    moved = Path(shutil.copytree(root, tmp_path / "moved"))
    workdir = Path(shutil.copytree(straight, tmp_path / "run"))
    job.run(config_of(root, data={"root": str(moved)}), workdir)
    assert "already complete" in capsys.readouterr().out
    assert load_run(workdir).config["data"]["root"] == str(moved)
