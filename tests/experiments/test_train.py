"""The command line of training: what goes wrong is said in one line, with exit code 1."""

import subprocess
import sys

import pytest


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "experiments.train", "--config=configs/multiscale.py:small"]
    return subprocess.run([*command, *arguments], capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--config.data.root=nowhere", "experiments.simulate"),
        ("--config.data.batch_size=4", "give --config.data.root"),
        ("--config.model.layer=3", 'Did you mean "layers"'),
        ("--config.dd=3", "the config has no key 'dd'"),
        ("--config.training.steps=many", "steps"),
    ],
)
def test_what_does_not_fit(tmp_path, argument: str, message: str) -> None:
    job = run(argument, f"--workdir={tmp_path / 'run'}")
    assert job.returncode != 0
    assert message in job.stderr and "Traceback" not in job.stderr
    assert not (tmp_path / "run" / "config.json").exists()


def test_help_says_what_it_does() -> None:
    job = run("--help")
    assert "resumes from the last checkpoint" in job.stdout
    assert "--workdir" in job.stdout
