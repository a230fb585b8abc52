"""The command line of training: what goes wrong is said in one line, with exit code 1."""

import pytest

from tests.commands import Commands
from tests.data.layout import write_split

TRAIN = ("experiments.train", "--config=configs/multiscale.py:small")


@pytest.fixture(scope="module")
def run():
    with Commands("modessm_jax.training.job") as commands:
        yield commands


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--config.data.root=nowhere", "experiments.simulate"),
        pytest.param(
            "--config.data.batch_size=4", "give --config.data.root", marks=pytest.mark.slow
        ),
        ("--config.model.layer=3", 'Did you mean "layers"'),
        pytest.param("--config.dd=3", "the config has no key 'dd'", marks=pytest.mark.slow),
        ("--config.training.steps=many", "steps"),
        pytest.param(
            "--config.data.sessions=a,b",
            """as --config.data.sessions="('first','second')\"""",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "--config.data.sessions=('t15.1','a')",
            "has no session a. It holds t15.1, t15.2",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "--config.model.strides=2,4",
            "strides = (2, 4): give 3 whole numbers",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_what_does_not_fit(run, tmp_path, argument: str, message: str) -> None:
    given = []
    if "root" not in argument and "root" not in message:
        for session in ("t15.1", "t15.2"):
            for split in ("train", "val"):
                write_split(tmp_path / "data", session, split, [9])
        given = [f"--config.data.root={tmp_path / 'data'}"]
    job = run(*TRAIN, argument, *given, f"--workdir={tmp_path / 'run'}")
    assert job.returncode != 0
    assert message in job.stderr and "Traceback" not in job.stderr
    assert not (tmp_path / "run" / "config.json").exists()


def test_help_says_what_it_does(run) -> None:
    job = run(*TRAIN, "--help")
    assert "resumes from the last checkpoint" in job.stdout
    assert "--workdir" in job.stdout
