"""Runs in processes of their own, tables, and error rates over several seeds."""

import subprocess
import sys
import time

import pytest

from modessm_jax.text import Edits, total
from studies import shared
from studies.shared import (
    difference,
    output_of,
    table,
    together,
    train_in_process,
    without_folders,
)


def trial(errors: int, length: int) -> Edits:
    return Edits(substitutions=errors, insertions=0, deletions=0, reference_length=length)


OURS = [[trial(1, 10), trial(0, 30)], [trial(2, 10), trial(1, 30)]]


def test_rates_are_of_the_sums():
    assert together(OURS) == [trial(3, 20), trial(1, 60)]
    assert total(together(OURS)).rate == pytest.approx(4 / 80)


def test_the_same_decodings_do_not_differ_and_more_errors_in_each_do():
    assert difference(OURS, OURS) == "0.00 % (0.00 % to 0.00 %)"
    # One more error for every ten phonemes of every trial: however trials are drawn, 10 points.
    worse = [
        [trial(t.substitutions + t.reference_length // 10, t.reference_length) for t in seed]
        for seed in OURS
    ]
    assert difference(worse, OURS) == "10.00 % (10.00 % to 10.00 %)"
    assert difference(OURS, worse) == "-10.00 % (-10.00 % to -10.00 %)"


def test_seeds_must_have_decoded_the_same_trials():
    with pytest.raises(ValueError, match="zip"):
        together([OURS[0], OURS[1][:1]])


def test_a_table_in_markdown():
    assert table(("run", "PER"), [["a", "1 %"], ["b", "2 %"]]).splitlines() == [
        "| run | PER |",
        "| --- | --- |",
        "| a | 1 % |",
        "| b | 2 % |",
    ]


@pytest.fixture
def program(monkeypatch):
    """Runs another program in place of the training; the processes that were started."""

    def replace(text: str) -> list[subprocess.Popen[bytes]]:
        started: list[subprocess.Popen[bytes]] = []

        class Process(subprocess.Popen[bytes]):
            def __init__(self, command, **options):
                assert command[1:4] == ["-m", "experiments.train", f"--workdir={command[3][10:]}"]
                super().__init__([sys.executable, "-c", text], **options)
                started.append(self)

        monkeypatch.setattr(shared.subprocess, "Popen", Process)
        return started

    return replace


def test_a_run_in_a_process_of_its_own(tmp_path, program):
    program("import os, sys, time; print(os.environ['SAID']); time.sleep(1.5); sys.exit(3)")
    ended = train_in_process(tmp_path / "run", ["--config=c.py"], {"SAID": "so"})
    assert ended.status == 3 and ended.memory > 100
    assert output_of(tmp_path / "run").read_text() == "so\n"


@pytest.mark.parametrize("signal", [KeyboardInterrupt, SystemExit])
def test_an_interrupted_study_lets_its_run_save_and_end(tmp_path, monkeypatch, program, signal):
    text = "import signal, sys, time\n"
    text += "signal.signal(signal.SIGTERM, lambda *_: sys.exit(print('saved')))\n"
    text += "print('begun', flush=True)\ntime.sleep(60)"
    started = program(text)

    def memory(pid):
        while "begun" not in output_of(tmp_path).read_text():
            time.sleep(0.05)
        raise signal

    monkeypatch.setattr(shared, "_memory", memory)
    monkeypatch.setattr(shared, "_SECONDS_TO_SAVE", 0.1)
    with pytest.raises(signal):
        train_in_process(tmp_path, [])
    assert started[0].returncode == 0
    assert output_of(tmp_path).read_text() == "begun\nsaved\n"


def test_folders_of_one_machine_are_left_out_of_a_command():
    given = ["--data", "/home/me/d", "--rates", "1e-3", "--out"]
    assert [*without_folders(given, "--data", "--out")] == [
        "--data", "DATA", "--rates", "1e-3", "--out", "OUT",
    ]  # fmt: skip
