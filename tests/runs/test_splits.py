"""Sessions come, go and are renamed between training, resuming, scoring and decoding."""

import json
import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import modessm_jax
from experiments import decode, evaluate
from modessm_jax.language.lexicon import build_lexicon
from modessm_jax.runs.checkpoints import CheckpointError
from modessm_jax.runs.load import load_run
from modessm_jax.runtime.preemption import PreemptedError
from modessm_jax.training import job
from tests.data.layout import write_split
from tests.training.test_job import config_of, digest

pytestmark = pytest.mark.usefixtures("shared_programs")
LENGTHS = [40, 44, 36, 48]


def write(root: Path, *sessions: str, like: str = "") -> None:
    """Writes sessions; the features of each depend on its name, or on the one it is like."""
    for name in sessions:
        for split, lengths in (("train", LENGTHS), ("val", LENGTHS[:2])):
            write_split(root, name, split, lengths)
            shift_features(root / name / f"data_{split}.hdf5", float(ord((like or name)[0])))


def shift_features(file: Path, amount: float) -> None:
    with h5py.File(file, "a") as handle:
        for group in handle.values():
            values = group["input_features"][...]
            group["input_features"][...] = values * (1 + amount / 100)


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("data")
    write(root, "a", "b")
    build_lexicon(["a", "one"]).write(root / "lexicon.txt")
    return root


@pytest.fixture(scope="module")
def straight(root, tmp_path_factory) -> Path:
    workdir = tmp_path_factory.mktemp("straight")
    job.run(config_of(root), workdir)
    return workdir


def evaluated(workdir: Path, tmp_path: Path, *options: object) -> list[dict[str, Any]]:
    file = tmp_path / "predictions.jsonl"
    evaluate.main(["--workdir", str(workdir), "--predictions", str(file), *map(str, options)])
    return [json.loads(line) for line in file.read_text().splitlines()]


def copied(root: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(root, tmp_path / "data"))


def test_a_run_resumes_to_the_same_bits_beside_a_new_session(root, straight, tmp_path, capsys):
    def stop_at_three(step: int) -> bool:
        return step == 3

    place = copied(root, tmp_path)
    config = config_of(root, data={"root": str(place), "lexicon": str(root / "lexicon.txt")})
    with pytest.raises(PreemptedError):
        job.run(config, tmp_path / "run", stop=stop_at_three)
    write(place, "a2", "c")
    job.run(config, tmp_path / "run")
    assert "left out: session a2, c, not there when the run began" in capsys.readouterr().out
    assert digest(tmp_path / "run") == digest(straight)
    logs = [(run / "metrics.jsonl").read_text() for run in (tmp_path / "run", straight)]
    assert logs[0] == logs[1]
    assert tuple(load_run(tmp_path / "run").sessions) == ("a", "b")


@pytest.mark.slow
def test_a_run_that_format_3_wrote_does_too(root, straight, tmp_path):
    place, former = copied(root, tmp_path), tmp_path / "former"
    config = config_of(root, data={"root": str(place), "lexicon": str(root / "lexicon.txt")})
    with pytest.raises(PreemptedError):
        job.run(config, former, stop=lambda step: step == 3)
    dataset = json.loads((former / "dataset.json").read_text())
    assert dataset.pop("folders") == ["a", "b"]
    (former / "dataset.json").write_text(json.dumps(dataset))
    (former / "format.json").write_text(json.dumps({"format": 3, "begun": 3}))
    write(place, "a2", "c")
    job.run(config, former)
    assert digest(former) == digest(straight)
    assert json.loads((former / "dataset.json").read_text()) == dataset


def test_new_sessions_are_named_and_left_out_of_scores(root, straight, tmp_path, caplog):
    before = evaluated(straight, tmp_path)
    place = copied(root, tmp_path)
    write(place, "a2", "c")
    assert evaluated(straight, tmp_path, "--data_root", place) == before
    assert "left out, not trained on: session a2, c" in caplog.text
    shutil.rmtree(place / "a")
    left = evaluated(straight, tmp_path, "--data_root", place)
    assert left == [line for line in before if line["session"] == "b"]
    chosen = evaluated(straight, tmp_path, "--data_root", root, "--sessions", "b")
    assert chosen == left


def test_a_renamed_session_is_scored_and_decoded_as_what_it_was(root, straight, tmp_path):
    place = tmp_path / "data"
    write(place, "new", like="b")
    run, renamed = load_run(straight), ["--session_map", "new=b"]
    with pytest.raises(SystemExit, match=r"not trained on the sessions new, but on a, b.*new=old"):
        evaluated(straight, tmp_path, "--data_root", place)
    found = evaluated(straight, tmp_path, "--data_root", place, *renamed)
    expected = evaluated(straight, tmp_path, "--sessions", "b")
    assert [line["phonemes"] for line in found] == [line["phonemes"] for line in expected]
    lexicon = ["--lexicon", str(root / "lexicon.txt"), "--processes", "1"]
    out = ["--out", str(tmp_path / "words")]
    words = ["--workdir", str(straight), "--data_root", str(place), *lexicon, *out, *renamed]
    decode.main(words)
    assert len((tmp_path / "words" / "val.jsonl").read_text().splitlines()) >= 2
    features = np.random.default_rng(0).normal(size=(60, run.channels))
    decoder = modessm_jax.load(straight, session_map={"new": "b"})
    assert decoder.decode(features, "new") == decoder.decode(features, "b")
    with pytest.raises(ValueError, match="session_map: z is not one of the model's: a, b"):
        modessm_jax.load(straight, session_map={"new": "z"})


def test_a_run_whose_session_is_gone_says_which(root, straight, tmp_path):
    workdir = Path(shutil.copytree(straight, tmp_path / "run"))
    place = copied(root, tmp_path)
    (place / "b").rename(place / "b3")
    config = config_of(root, data={"root": str(place)})
    with pytest.raises(CheckpointError, match=r"the sessions b are gone.*new are b3.*init\.run"):
        job.run(config, workdir)


@pytest.mark.slow
def test_a_session_without_training_is_refused_or_said(root, tmp_path, caplog):
    place = copied(root, tmp_path)
    write_split(place, "c", "val", LENGTHS[:2])
    config = config_of(root, data={"root": str(place)})
    with pytest.raises(ValueError, match=r"sessions c have val trials, but none to train an adap"):
        job.run(config, tmp_path / "run")
    config.update({"data": {"untrained_sessions": "mean"}})
    results = job.run(config, tmp_path / "run")
    assert "session c is read with the adapter of the mean of all" in caplog.text
    assert results["val"]["trials"] == 6
    assert tuple(load_run(tmp_path / "run").sessions) == ("a", "b")
    assert len(evaluated(tmp_path / "run", tmp_path)) == 6
    assert len(evaluated(tmp_path / "run", tmp_path, "--untrained_sessions", "nearest")) == 6
    assert "session c is read with the adapter of b" in caplog.text


@pytest.mark.slow
def test_a_run_begins_with_the_weights_and_the_sessions_of_another(
    root, straight, tmp_path, capsys
):
    place = tmp_path / "data"
    write(place, "b")  # a stays as it was
    data: dict[str, Any] = {"root": str(place), "lexicon": str(root / "lexicon.txt")}
    config = config_of(root, data=data, init={"run": str(straight)})
    report = job.run(config, tmp_path / "run")["init"]
    assert report["mapped"] == {"a": "a", "b": "b"}
    assert "adapters: 2 sessions as they were" in capsys.readouterr().out
    assert not report["new"] and not report["left"]
    run, before = load_run(tmp_path / "run"), load_run(straight)
    assert tuple(run.sessions) == ("a", "b")
    entries = [loaded.params["adaptation"]["weight"][0] for loaded in (run, before)]
    np.testing.assert_allclose(*entries, atol=1e-5)  # decay alone changes it
    assert len(evaluated(tmp_path / "run", tmp_path, "--data_root", root)) == 4
    assert job.run(config, tmp_path / "run")["init"] == report  # complete: summed up again
