"""Runs kept from earlier formats are scored, decoded, exported and resumed by the code as it is."""

import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from orbax.checkpoint import v1 as ocp

from experiments import checkpoints as checkpoints_command
from experiments.evaluate import main as evaluate_command
from modessm_jax.runs.checkpoint_files import CheckpointError, steps_in
from modessm_jax.runs.checkpoints import load_weights
from modessm_jax.runs.identity import FORMAT, check_identity
from modessm_jax.runs.load import export, load_run
from modessm_jax.runs.state import by_path
from modessm_jax.runtime.preemption import PreemptedError
from modessm_jax.training import job
from tests.runs.format_1.config import get_config

KEPT = Path(__file__).with_name("format_1")
EXPECTED = json.loads((KEPT / "expected.json").read_text(encoding="utf-8"))
NAMES = ["multiscale", "modessm"]


@pytest.fixture(scope="module")
def kept(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("format_1")
    with tarfile.open(KEPT / "runs.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    return folder


def this_platform() -> str:
    """What the bits of a float32 computation depend on, besides the code."""
    info = Path("/proc/cpuinfo")
    text = info.read_text(encoding="utf-8") if info.exists() else ""
    model, flags = (
        re.search(rf"^{key}\s*:\s*(.*)$", text, re.M) for key in ("model name", "flags")
    )
    if model is None or flags is None:
        return platform.machine()
    digest = hashlib.sha256(flags[1].encode()).hexdigest()[:8]
    return (
        f"{platform.machine()}, {model[1]} with flags {digest}, "
        f"jax {version('jax')}, jaxlib {version('jaxlib')}"
    )


def train(*arguments: str) -> subprocess.CompletedProcess:
    """The command, on one device, compiled as the kept runs were."""
    changed = {"JAX_PLATFORMS": "cpu", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    unset = ("XLA_FLAGS", "JAX_NUM_CPU_DEVICES")
    return subprocess.run(
        [sys.executable, "-m", "experiments.train", *arguments],
        env={k: v for k, v in os.environ.items() if k not in unset} | changed,
        capture_output=True,
        text=True,
        check=False,
    )


def digests(folder: Path) -> dict[str, str]:
    """sha256 of the arrays in each part of a checkpoint."""
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    metadata = ocp.checkpointables_metadata(str(folder)).metadata
    found = {}
    for name in ("weights", "ema", "optimizer"):
        like = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=device), metadata[name]
        )
        tree = ocp.load_checkpointables(str(folder), {name: like})[name]
        digest = hashlib.sha256()
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
            digest.update(f"{jax.tree_util.keystr(path)} {leaf.dtype}{leaf.shape}".encode())
            digest.update(np.asarray(leaf).tobytes())
        found[name] = digest.hexdigest()
    return found


def decoded(workdir: Path, data: Path, out: Path) -> dict[str, str]:
    """The greedy phoneme ids of each trial of val."""
    evaluate_command(
        ["--workdir", str(workdir), "--data_root", str(data), "--predictions", str(out)]
    )
    lines = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    return {
        f"{line['session']}/{line['block_num']}/{line['trial_num']}": " ".join(
            map(str, line["phonemes"])
        )
        for line in lines
    }


def assert_parameters(found: Path, expected: Path, tolerance: float) -> None:
    with np.load(found) as ours, np.load(expected) as theirs:
        assert set(ours) == {*theirs, "sessions"}  # their names are written since format 4
        for name in theirs:
            np.testing.assert_allclose(
                ours[name], theirs[name], rtol=0, atol=tolerance, err_msg=name
            )


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.usefixtures("shared_programs")
def test_a_kept_run_is_resumed_to_the_same_end(kept, tmp_path, name):
    expected = EXPECTED[name]
    workdir = Path(shutil.copytree(kept / name, tmp_path / name))
    ended = train(
        f"--config={KEPT / 'config.py'}:{kept / name}",
        f"--config.data.root={kept / 'data'}",
        f"--workdir={workdir}",
    )
    assert ended.returncode == 0, ended.stderr
    assert f"resuming after step {expected['kept']['step']}" in ended.stdout
    logged = (kept / name / "metrics.jsonl").read_bytes()
    assert (workdir / "metrics.jsonl").read_bytes().startswith(logged)
    end = expected["end"]
    results: dict[str, Any] = json.loads((workdir / "results.json").read_text())
    assert results["rollbacks"] == end["rollbacks"]
    assert export(workdir, tmp_path / "end.npz") == end["step"]
    if EXPECTED.get("platform") == this_platform():
        assert digests(workdir / "checkpoints" / str(end["step"])) == end["sha256"]
        assert_parameters(tmp_path / "end.npz", kept / f"{name}.npz", tolerance=0.0)
        assert {key: results["val"][key] for key in end["val"]} == end["val"]
        assert decoded(workdir, kept / "data", tmp_path / "end.jsonl") == end["phonemes"]
    else:
        assert_parameters(tmp_path / "end.npz", kept / f"{name}.npz", tolerance=1e-3)
        nats = end["val"]["nats_per_label"]
        assert results["val"]["nats_per_label"] == pytest.approx(nats, rel=1e-2)


@pytest.mark.parametrize("name", NAMES)
def test_a_kept_run_is_restored_and_becomes_one_of_this_format(kept, tmp_path, name, capsys):
    expected = EXPECTED[name]["kept"]
    workdir = Path(shutil.copytree(kept / name, tmp_path / name))
    config = get_config(str(workdir))
    config.update({"data": {"root": str(kept / "data")}})
    with pytest.raises(PreemptedError):  # before it compiles a step
        job.run(config, workdir, stop=lambda step: True)
    assert f"resuming after step {expected['step']}" in capsys.readouterr().out
    format_of = json.loads((workdir / "format.json").read_text())
    assert format_of == {"format": FORMAT, "begun": 1}
    for file in ("metrics.jsonl", "dataset.json"):
        assert (workdir / file).read_bytes() == (kept / name / file).read_bytes()
    history = load_weights(workdir / "checkpoints", None).history
    assert history.rollbacks == EXPECTED[name]["end"]["rollbacks"]


@pytest.mark.parametrize("name", ["multiscale", pytest.param("modessm", marks=pytest.mark.slow)])
def test_a_kept_run_is_decoded(kept, tmp_path, name):
    found = decoded(kept / name, kept / "data", tmp_path / "val.jsonl")
    assert found == EXPECTED[name]["kept"]["phonemes"]


@pytest.mark.parametrize("name", NAMES)
def test_the_checkpoints_of_a_kept_run_are_sound_and_exported(kept, tmp_path, name, capsys):
    checkpoints_command.main(["verify", str(kept / name)])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 and all("sound:" in line for line in lines)
    checkpoints_command.main(["export", str(kept / name), "--out", str(tmp_path / "best.npz")])
    run = load_run(kept / name)
    with np.load(tmp_path / "best.npz") as arrays:
        assert set(arrays) == {*by_path(run.params), "sessions"}
        assert tuple(arrays["sessions"]) == tuple(run.sessions)
        assert sum(array.size for array in arrays.values()) > 1000


def test_a_run_of_a_later_format_is_refused_by_every_command(kept, tmp_path):
    workdir = Path(shutil.copytree(kept / "multiscale", tmp_path / "later"))
    (workdir / "format.json").write_text(json.dumps({"format": FORMAT + 1}))
    message = rf"later has format {FORMAT + 1}, and this version of modessm_jax reads formats up to"
    with pytest.raises(CheckpointError, match=message):
        load_run(workdir)
    for command, arguments in (
        (evaluate_command, ["--workdir", str(workdir)]),
        (checkpoints_command.main, ["verify", str(workdir)]),
        (checkpoints_command.main, ["export", str(workdir), "--out", str(tmp_path / "m.npz")]),
    ):
        with pytest.raises(SystemExit, match=message):
            command(arguments)
    config, dataset = (
        json.loads((workdir / f).read_text()) for f in ("config.json", "dataset.json")
    )
    with pytest.raises(CheckpointError, match=message):
        check_identity(workdir, config, dataset, resuming=True)
    assert steps_in(workdir / "checkpoints") == [EXPECTED["multiscale"]["kept"]["step"]]
