import h5py
import numpy as np
import pytest

from tests.commands import Commands

SIMULATE = "experiments.simulate"


@pytest.fixture(scope="module")
def run():
    with Commands("modessm_jax.simulate.files", "modessm_jax.simulate.comparison") as commands:
        yield commands


def test_the_job_writes_a_small_data_set(run, tmp_path):
    out = tmp_path / "simulated"
    sizes = ("--sessions", 1, "--train", 3, "--val", 1, "--test", 1, "--electrodes", 8)
    job = run(SIMULATE, "--out", out, *sizes)
    assert job.returncode == 0, job.stderr
    assert "5/5 trials" in job.stdout and "train bins" in job.stdout
    (session,) = (path for path in out.iterdir() if path.is_dir())
    with h5py.File(session / "data_train.hdf5") as file:
        assert len(file) == 3


@pytest.mark.slow
def test_the_job_compares_with_a_recording(run, tmp_path):
    rng = np.random.default_rng(0)
    trial = np.concatenate([np.log1p(rng.poisson(0.6, (8, 400))), rng.normal(size=(8, 400))])
    np.save(tmp_path / "trial.npy", trial.astype(np.float32))
    picture = tmp_path / "picture.png"
    job = run(SIMULATE, "--compare", tmp_path / "trial.npy", "--picture", picture)
    assert job.returncode == 0, job.stderr
    assert "crossings: skewness" in job.stdout and picture.exists()


def test_the_job_needs_out_or_compare(run):
    job = run(SIMULATE)
    assert job.returncode != 0 and "--out or --compare" in job.stdout + job.stderr


@pytest.mark.slow
def test_what_an_interrupted_simulation_left_is_refused_in_one_line_and_replaced(run, tmp_path):
    left = tmp_path / "sim.2025.01.07" / "data_train.hdf5.partial"
    left.parent.mkdir()
    left.write_text("half")
    sizes = ("--sessions", 1, "--train", 1, "--val", 1, "--test", 1, "--electrodes", 8)
    job = run(SIMULATE, "--out", tmp_path, *sizes)
    assert job.returncode == 1
    assert "pass --overwrite" in job.stderr and "Traceback" not in job.stderr
    job = run(SIMULATE, "--out", tmp_path, *sizes, "--overwrite")
    assert job.returncode == 0, job.stderr
    assert (tmp_path / "truth.json").exists() and not left.exists()
