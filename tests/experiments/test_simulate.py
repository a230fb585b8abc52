import subprocess
import sys

import h5py
import numpy as np


def run(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "experiments.simulate", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_job_writes_a_small_data_set(tmp_path):
    out = tmp_path / "simulated"
    job = run(
        *("--out", out, "--sessions", 1, "--train", 3, "--val", 1, "--test", 1, "--electrodes", 8)
    )
    assert job.returncode == 0, job.stderr
    assert "5/5 trials" in job.stdout and "train bins" in job.stdout
    (session,) = (path for path in out.iterdir() if path.is_dir())
    with h5py.File(session / "data_train.hdf5") as file:
        assert len(file) == 3


def test_the_job_compares_with_a_recording(tmp_path):
    rng = np.random.default_rng(0)
    trial = np.concatenate([np.log1p(rng.poisson(0.6, (8, 400))), rng.normal(size=(8, 400))])
    np.save(tmp_path / "trial.npy", trial.astype(np.float32))
    picture = tmp_path / "picture.png"
    job = run("--compare", tmp_path / "trial.npy", "--picture", picture)
    assert job.returncode == 0, job.stderr
    assert "crossings: skewness" in job.stdout and picture.exists()


def test_the_job_needs_out_or_compare():
    job = run()
    assert job.returncode != 0 and "--out or --compare" in job.stdout + job.stderr


def test_what_an_interrupted_simulation_left_is_refused_in_one_line_and_replaced(tmp_path):
    left = tmp_path / "sim.2025.01.07" / "data_train.hdf5.partial"
    left.parent.mkdir()
    left.write_text("half")
    sizes = ("--sessions", 1, "--train", 1, "--val", 1, "--test", 1, "--electrodes", 8)
    job = run("--out", tmp_path, *sizes)
    assert job.returncode == 1
    assert "pass --overwrite" in job.stderr and "Traceback" not in job.stderr
    job = run("--out", tmp_path, *sizes, "--overwrite")
    assert job.returncode == 0, job.stderr
    assert (tmp_path / "truth.json").exists() and not left.exists()
