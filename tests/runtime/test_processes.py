"""Two processes of two devices each make one run."""

import json
import os
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest
from jax.experimental import multihost_utils

from modessm_jax.runs.checkpoints import load_weights
from modessm_jax.runtime.preemption import EXIT_STATUS
from modessm_jax.runtime.processes import (
    broadcast_from_first,
    check_equal,
    first_process_folder,
    is_first,
    join,
)
from tests import toy
from tests.runtime import one_of_several


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def together(workdir, *given: tuple[str, ...]) -> list[subprocess.CompletedProcess]:
    """Runs a process for each set of arguments; all of them end before this does."""
    address = f"127.0.0.1:{free_port()},{len(given)}"
    environment = {**os.environ, "JAX_NUM_CPU_DEVICES": "2", "JAX_PLATFORMS": "cpu"}
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.runtime.one_of_several", str(workdir),
             f"{address},{index}", *arguments],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
        )
        for index, arguments in enumerate(given)
    ]  # fmt: skip
    try:
        said = [process.communicate(timeout=240) for process in started]
    finally:
        for process in started:
            process.kill()
    return [
        subprocess.CompletedProcess(process.args, process.returncode, *words)
        for process, words in zip(started, said, strict=True)
    ]


def weights(workdir):
    return load_weights(workdir / "checkpoints", toy.initial_params(), one_of_several.STEPS)


def lines(workdir):
    text = (workdir / "metrics.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that was never interrupted, of two processes."""
    workdir = tmp_path_factory.mktemp("several") / "run"
    ended = together(workdir, ("3",), ("3",))
    assert [process.returncode for process in ended] == [0, 0], ended[0].stderr + ended[1].stderr
    return workdir, ended


@pytest.mark.slow
def test_two_processes_make_the_run_of_one(whole, tmp_path):
    workdir, _ = whole
    one_of_several.run(tmp_path / "run", 3)
    for ours, theirs in zip(
        jax.tree.leaves((weights(workdir).params, weights(workdir).ema)),
        jax.tree.leaves((weights(tmp_path / "run").params, weights(tmp_path / "run").ema)),
        strict=True,
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)
    for ours, theirs in zip(lines(workdir), lines(tmp_path / "run"), strict=True):
        assert ours.pop("kind") == theirs.pop("kind")
        assert ours == pytest.approx(theirs, rel=1e-4)


@pytest.mark.slow
def test_the_first_alone_prints_and_writes(whole):
    workdir, ended = whole
    assert "step 6" in ended[0].stdout
    heard = ended[1].stdout.splitlines()
    assert [line for line in heard if not line.startswith("[Gloo]")] == []  # of a library in C++
    assert (workdir / "results.json").exists()


@pytest.mark.slow
def test_a_signal_to_one_saves_in_all_and_the_rest_is_the_same_to_the_bit(whole, tmp_path):
    workdir, _ = whole
    ended = together(tmp_path / "run", ("3",), ("3", "3"))
    assert [process.returncode for process in ended] == [EXIT_STATUS] * 2, ended[0].stderr
    assert (tmp_path / "run" / "checkpoints" / "3").is_dir()
    ended = together(tmp_path / "run", ("3",), ("3",))
    assert [process.returncode for process in ended] == [0, 0], ended[0].stderr
    assert "resuming after step 3" in ended[0].stdout
    for ours, theirs in zip(
        jax.tree.leaves((weights(workdir).params, weights(workdir).ema)),
        jax.tree.leaves((weights(tmp_path / "run").params, weights(tmp_path / "run").ema)),
        strict=True,
    ):
        np.testing.assert_array_equal(ours, theirs)
    assert lines(workdir) == lines(tmp_path / "run")


@pytest.mark.slow
def test_processes_of_different_configs_are_refused(tmp_path):
    ended = together(tmp_path / "run", ("3",), ("4",))
    for process in ended:
        assert process.returncode == 1
        assert "processes [1] have another config or data set than process 0" in process.stderr


def test_a_process_alone_is_the_first_and_tells_itself(tmp_path):
    assert is_first()
    assert broadcast_from_first(lambda: {"a": [1, 2.5, None]}) == {"a": [1, 2.5, None]}
    check_equal("config", {"a": 1})
    with first_process_folder(tmp_path) as folder:
        assert folder == tmp_path


def test_an_error_of_the_first_process_is_raised_in_all(monkeypatch):
    def fails() -> None:
        raise FileNotFoundError("run.lock is gone")

    sent: list[np.ndarray] = []
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(
        multihost_utils, "broadcast_one_to_all", lambda value: sent.append(value) or value
    )
    with pytest.raises(FileNotFoundError, match=r"run\.lock is gone"):
        broadcast_from_first(fails)
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    monkeypatch.setattr(multihost_utils, "broadcast_one_to_all", lambda value: sent.pop(0))
    with pytest.raises(ValueError, match=r"run\.lock is gone"):
        broadcast_from_first(lambda: pytest.fail("only the first process looks"))
    assert not sent


@pytest.mark.parametrize("place", ["", "node0", "node0:12", "node0:12,2", "node0:12,two,0"])
def test_a_place_that_says_nothing_is_refused(place):
    with pytest.raises(ValueError, match="give auto, or HOST:PORT,PROCESSES,INDEX"):
        join(place)
