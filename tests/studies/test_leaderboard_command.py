"""The command of the leaderboard, with training and scoring replaced; and once as it is."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from modessm_jax.runtime.lock import run_lock
from modessm_jax.text import Edits
from studies.leaderboard import __main__, measure
from studies.shared import Ended
from tests.data.layout import write_split

# ml_collections loads configs in a way that Python is about to drop.
pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")


@dataclass
class Result:
    """What is made up of a trial."""

    edits: Edits
    rnnt: None = None

    def prediction(self) -> dict[str, Any]:
        return {"trial_num": 0, "phonemes": [3], "modes": [0.5, 0.5]}


@dataclass
class Trained:
    """The trainings that were asked for: (folder, keys); they fail with `fails` in the folder."""

    runs: list[tuple[Path, dict[str, str]]] = field(default_factory=list)
    fails: str = "nothing"

    def __call__(self, workdir: Path, arguments: list[str], environment: Any) -> Ended:
        keys = dict(word.removeprefix("--config.").split("=", 1) for word in arguments)
        self.runs.append((workdir, keys))
        if self.fails in str(workdir):
            (workdir / "output.log").write_text("step 1\nno room\n")
            return Ended(1, 0)
        steps = int(keys.get("training.steps", 1000))
        seconds = {"step": steps / 2, "input": 0.0}  # and half as many of the CPU
        results = {"steps": steps, "seconds": seconds, "cpu_seconds": steps / 4}
        results |= {"parameters": 5, "select_by": "per"}
        (workdir / "results.json").write_text(json.dumps(results))
        (workdir / "metrics.jsonl").write_text('{"step": 5, "kind": "evaluation", "per": 0.1}\n')
        return Ended(0, 2048)


@pytest.fixture
def trained(monkeypatch) -> Trained:
    found = Trained()
    evaluation = SimpleNamespace(trials=[Result(Edits(1, 0, 0, 10)), Result(Edits(0, 0, 0, 10))])
    run = SimpleNamespace(functional=SimpleNamespace(steps=None))
    monkeypatch.setattr(measure, "train_in_process", found)
    monkeypatch.setattr(measure, "load_run", lambda workdir: run)
    monkeypatch.setattr(measure, "evaluate_run", lambda *given: evaluation)
    return found


@pytest.fixture
def given(tmp_path) -> list[str]:
    for split in ("train", "val", "test"):
        write_split(tmp_path / "digits", "a", split, [9])
    folders = ["--data", str(tmp_path / "digits"), "--work", str(tmp_path / "w")]
    return ["gru:small", "conformer:small", *folders, "--out", str(tmp_path / "o"), "--seeds"]


@pytest.mark.slow
def test_steps_are_measured_once_and_nothing_is_trained_twice(tmp_path, trained, given, capsys):
    command = [*given, "0", "1", "--seconds", "50", "--test"]
    __main__.main(command)
    probes = [keys for workdir, keys in trained.runs if "probe" in str(workdir)]
    runs = [keys for workdir, keys in trained.runs if "probe" not in str(workdir)]
    assert [keys["training.steps"] for keys in probes] == ["48", "48"]
    # A quarter of a second a step: 200 steps.
    assert [keys["training.steps"] for keys in runs] == ["200"] * 4
    assert [keys["training.seed"] for keys in runs] == ["0", "0", "1", "1"]
    assert runs[0]["optimizer.warmup_steps"] == "17" and runs[0]["training.eval_every"] == "25"
    assert runs[0]["data.root"] == str(tmp_path / "digits")
    said, text = capsys.readouterr().out, (tmp_path / "o.md").read_text()
    assert "4 runs, 0 of them complete" in said and "4/4 runs, about 0.0 h left" in said
    assert "| gru:small | 5.00 % | 5.00 %, 5.00 % |  | 5 | 200 (0.20) | 50 | 2 | - |" in text
    assert "    python -m studies.leaderboard gru:small conformer:small --data DATA/digits" in text
    assert str(tmp_path) not in text and (tmp_path / "o_digits.png").exists()
    lines = lines_of(tmp_path / "o_digits_test.jsonl")
    assert len(lines) == 8
    assert lines[0] == {"config": "gru:small", "seed": 0, "trial_num": 0, "phonemes": [3]}

    __main__.main(command)
    assert len(trained.runs) == 6
    with pytest.raises(SystemExit, match="trained with other arguments"):
        __main__.main([*command, "--", "--config.data.batch_size=8"])
    __main__.main([*given, "0", "--clock", "wall", "--seconds", "50"])  # with the same probes
    assert [keys["training.steps"] for _, keys in trained.runs[6:]] == ["100", "100"]
    __main__.main([*given, "0"])
    assert ["training.steps" in keys for _, keys in trained.runs[8:]] == [False, False]


def test_a_run_that_another_process_is_at_is_left_to_it(tmp_path, trained, given, monkeypatch):
    taken = tmp_path / "w/digits/gru-small/recipe/seed-0"
    taken.mkdir(parents=True)
    other = run_lock(taken)
    other.__enter__()

    def look(seconds: float) -> None:
        assert [workdir.parts[-4] for workdir, _ in trained.runs] == ["conformer-small"]
        other.__exit__(None, None, None)

    monkeypatch.setattr(__main__.time, "sleep", look)
    __main__.main([*given, "0"])
    assert [workdir.parts[-4] for workdir, _ in trained.runs] == ["conformer-small", "gru-small"]


def test_a_run_that_fails_is_named_once_all_others_are_complete(tmp_path, trained, given):
    trained.fails = "gru-small"
    with pytest.raises(
        SystemExit, match=r"gru:small, seed 0: training failed: no room\nIts output is in"
    ):
        __main__.main([*given, "0"])
    assert len(trained.runs) == 2 and not (tmp_path / "o.md").exists()
    trained.fails = "nothing"
    __main__.main([*given, "0"])
    assert len(trained.runs) == 3 and (tmp_path / "o.md").exists()


@pytest.mark.parametrize(
    ("further", "message"),
    [
        (["0", "--against", "gru"], "choose one of gru:small, conformer:small"),
        (["0", "0"], "seed 0 is given twice"),
        (["0", "--seconds", "0"], "give more than 0"),
        (["0", "--", "--config.model.patches=3"], "no key 'patches'"),
        (["0", "--", "training.steps=3"], "as KEY=VALUE"),
    ],
)
def test_bad_input_is_said_before_the_first_run(trained, given, further, message):
    with pytest.raises(SystemExit, match=message):
        __main__.main([*given, *further])
    assert not trained.runs


def test_data_without_val_are_said_before_the_first_run(tmp_path, trained, given):
    (tmp_path / "digits/a/data_val.hdf5").unlink()
    with pytest.raises(SystemExit, match=r"no session read has a data_val.hdf5"):
        __main__.main([*given, "0"])
    assert not trained.runs


@pytest.mark.slow
def test_two_small_models_interrupted_and_gone_on_with(tmp_path):
    """SIGTERM in the second run; the same command keeps the first and goes on with the second."""
    sizes = ["--sessions", "1", "--train", "12", "--val", "3", "--test", "2", "--electrodes", "8"]
    command = [sys.executable, "-m", "experiments.simulate", "--out", str(tmp_path / "sim"), *sizes]
    subprocess.run(command, check=True)
    keys = "data.batch_size=4 data.buckets=1 model.d=16 model.layers=1 training.log_every=1"
    recipes = [
        f"gru=gru:demo {keys} data.sessions_per_batch=0",
        f"transformer=transformer:demo {keys} model.heads=2 model.ff=16",
    ]
    command = [
        sys.executable, "-m", "studies.leaderboard", *recipes, "--data", str(tmp_path / "sim"),
        "--work", str(tmp_path / "w"), "--out", str(tmp_path / "o"), "--seeds", "0", "--test",
        "--", "--config.training.steps=100", "--config.training.save_every=5",
        "--config.optimizer.warmup_steps=3",
    ]  # fmt: skip
    environment = {k: v for k, v in os.environ.items() if k != "JAX_COMPILATION_CACHE_DIR"}
    study = subprocess.Popen(command, env=environment)
    second = next_of(study, tmp_path / "w", "transformer*/recipe/seed-0/run/metrics.jsonl")
    study.send_signal(signal.SIGTERM)
    assert study.wait() == 1
    assert not (second.parent / "results.json").exists()
    begun = len(second.read_text().splitlines())
    first = next(tmp_path.glob("w/sim/gru*/recipe/seed-0/score.json"))
    scored = first.stat().st_mtime_ns
    subprocess.run(command, env=environment, check=True)
    assert first.stat().st_mtime_ns == scored
    output = (second.parent / "output.log").read_text()
    assert "resuming after step" in output and begun > 1
    text = (tmp_path / "o.md").read_text()
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith(("| gru", "| tran"))]
    assert [row[5] for row in rows] == ["100", "100"]
    assert all(float(row[6]) >= 0 and row[7] != "-" and float(row[8][:-2]) > 0 for row in rows)
    lines = lines_of(tmp_path / "o_sim_test.jsonl")
    assert len(lines) == 4 and {"session", "block_num", "trial_num", "phonemes"} < set(lines[0])
    assert any((tmp_path / "w/compiled").iterdir())


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def next_of(study: subprocess.Popen[bytes], work: Path, pattern: str) -> Path:
    """The first file of that name, once it has some lines."""
    while study.poll() is None:
        for file in work.glob(f"sim/{pattern}"):
            if len(file.read_text().splitlines()) > 2:
                return file
        time.sleep(0.05)
    raise AssertionError("the study ended too soon")
