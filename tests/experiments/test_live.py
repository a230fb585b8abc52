"""The command of a live decoder: what it saves and shows is what offline decoding gives."""

import io
import json
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import optax
import pytest

import modessm_jax
from benchmarks.chromium import chromium, open_page, program
from benchmarks.live import page_of
from experiments.live import main
from modessm_jax.data.recordings import read_recordings
from modessm_jax.decoder import Decoder, load
from modessm_jax.live.wire import end_message, message
from modessm_jax.recalibration.adapter import adapter_of
from modessm_jax.recalibration.unlabelled import Recalibrator
from modessm_jax.runs.checkpoints import Checkpoints
from modessm_jax.runs.history import History
from modessm_jax.runs.load import Run, describe_data, load_run
from modessm_jax.runs.state import create_state
from modessm_jax.runtime.files import write_json
from modessm_jax.runtime.mesh import data_mesh
from tests.data.layout import write_split, write_trial
from tests.streaming.tiny import CHANNELS, decoder_of, run_of, trial

LENGTHS = [60, 41, 33]
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("data")
    for split in ("train", "val"):
        write_split(root, "a", split, LENGTHS, channels=CHANNELS)
    return root


@pytest.fixture(scope="module")
def trained(data, shared_programs) -> Run:
    """A run of random parameters that says one thing and another."""
    run = run_of("gru", channels="", root=str(data))
    params = jax.tree.map(np.array, run.params)
    params["head"]["kernel"] *= 10
    said = decoder_of(run._replace(params=params)).stream("a").push(trial(100)).frames
    params["head"]["bias"] -= said.mean(axis=0)
    return run._replace(params=params)


@pytest.fixture(scope="module")
def decoder(trained) -> Decoder:
    return decoder_of(trained)


@pytest.fixture(scope="module")
def offline(decoder, data) -> list[str]:
    """The text of every trial."""
    recordings = read_recordings(data, "val")
    trials = [recordings.features(index) for index in range(len(recordings))]
    texts = [" ".join(map(str.strip, one.phonemes)) for one in decoder.decode(trials, "a")]
    assert len(set(texts)) == 3
    return texts


@pytest.fixture
def run(decoder, monkeypatch, tmp_path):
    """Runs the command with the decoder; gives the sentences in its file."""
    monkeypatch.setattr(modessm_jax, "load", lambda *_, **__: decoder)
    monkeypatch.setattr(signal, "signal", lambda *_: None)

    def running(*arguments: object) -> list[dict]:
        file = tmp_path / "live.jsonl"
        given = ["--workdir", tmp_path, "--session", "a", "--out", file, *arguments]
        main(list(map(str, given)))
        return [json.loads(line) for line in file.read_text().splitlines()]

    return running


def test_a_replay(run, data, offline, capsys):
    saved = run("--replay", data, "--speed", "inf")
    assert [one["text"] for one in saved] == offline
    assert [one["reference"] for one in saved] == ["sentence 0", "sentence 1", "sentence 2"]
    assert [one["counts"]["used"] for one in saved] == LENGTHS
    said = capsys.readouterr().out.splitlines()
    assert said[:3] == [
        f"{number}: {text}  (meant: sentence {number - 1})"
        for number, text in enumerate(offline, 1)
    ]
    assert said[3] == "bins: 134 used" and "deadlines missed" in said[4]


def test_standard_input_with_a_page(run, data, offline, monkeypatch, capsys):
    recordings = read_recordings(data, "val")
    sent = b"".join(
        message(7, recordings.features(index)) + end_message() for index in range(len(recordings))
    )
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(sent)))

    def interrupted(*_) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(signal, "pause", interrupted)
    saved = run("--stdin", "--port", "0", "--before", data)
    assert [one["text"] for one in saved] == offline
    said = capsys.readouterr().out
    assert "the page is at http://127.0.0.1:" in said and "the source has ended" in said


def test_a_recalibrated_session_is_saved_as_a_run(run, workdir, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(modessm_jax, "load", load)
    # A random model may well doubt more after a step, and then nothing would change.
    monkeypatch.setattr(Recalibrator, "_check", lambda self: False)
    recorded, out = tmp_path / "recorded", tmp_path / "today"
    (recorded / "a").mkdir(parents=True)
    for number, bins in enumerate(LENGTHS):
        drifted = trial(bins, number) / 3 - 1
        file = recorded / "a" / "data_val.hdf5"
        write_trial(file, number, bins=bins, labels=[1], features=drifted)
    options = ("--recalibrate", "statistics", "--save_run", out, "--replay", recorded)
    saved = run("--speed", "inf", *options, "--workdir", workdir)
    lines = [line for line in saved if "learned_from" in line]
    assert [line["learned_from"] for line in lines] == [1, 2, 3]
    assert not any(line["unused"] or line["taken_back"] for line in lines)
    printed = capsys.readouterr().out
    assert "statistics: 0 of 0 checks took steps back" in printed
    assert f"the recalibrated session is in {out}" in printed
    before, after = load_run(workdir), load_run(out)
    for name in ("a", "b"):
        old, new = (adapter_of(one.params, one.sessions[name]) for one in (before, after))
        assert np.array_equal(old["weight"], new["weight"]) == (name == "b")
    assert json.loads((out / "config.json").read_text())["data"]["root"] == str(recorded)
    with pytest.raises(SystemExit, match="is not empty"):
        run(*options)
    with pytest.raises(SystemExit, match="--save_run needs --recalibrate"):
        run(*options[2:])


def test_what_is_unfit_ends_with_one_line(run, data, tmp_path):
    with pytest.raises(SystemExit, match="has no session b"):
        run("--replay", data, "--session", "b")
    write_split(tmp_path / "wide", "a", "val", [20], channels=CHANNELS + 1)
    with pytest.raises(SystemExit, match="has 5 channels, but the model was built for 4"):
        run("--replay", tmp_path / "wide")
    with pytest.raises(SystemExit, match="5 channels, but the model was trained on 4"):
        run("--stdin", "--channels", "5")
    (tmp_path / "live.jsonl").write_text("no sentence\n")
    with pytest.raises(SystemExit, match="line 1: no sentence"):
        run("--replay", data)


@pytest.fixture(scope="module")
def workdir(data, trained, tmp_path_factory) -> Path:
    """The decoder's run, on disk."""
    workdir, run = tmp_path_factory.mktemp("run"), trained
    defaults = {"sessions": [], "table": "", "batch_size": 4, "buckets": 1, "memory_gib": 1.0}
    config = run.config | {
        "data": defaults | run.config["data"],
        "objective": {"normalize_by": "frames", "weights": {"phoneme": 1.0}},
    }
    write_json(workdir / "config.json", config)
    write_json(
        workdir / "dataset.json", describe_data(read_recordings(data, "val"), sessions=["a", "b"])
    )
    params = jax.tree.map(np.asarray, run.params)
    state = create_state(params, optax.sgd(0.1), data_mesh(), ema=False)
    Checkpoints(workdir, keep=1).save_best(7, state, History())
    return workdir


@pytest.mark.slow
@pytest.mark.browser
@pytest.mark.skipif(program() is None, reason="no Chromium: apt-get install chromium")
def test_the_page_of_a_replay_shows_what_offline_decoding_gives(workdir, data, offline):
    command = [sys.executable, "-m", "experiments.live", "--workdir", workdir, "--session", "a"]
    command += ["--replay", data, "--speed", "0.5", "--port", "0"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            with chromium() as browser:
                page, errors = open_page(browser, page_of(process))
                pictures = set()
                for _ in range(600):
                    pictures.add(page.locator("#raster").evaluate("canvas => canvas.toDataURL()"))
                    if page.locator("#sentence-3").count():
                        break
                    page.wait_for_timeout(100)
                assert len(pictures) > 2  # it moves
                shown = page.locator("#past .text").all_inner_texts()
                assert [" ".join(text.split()) for text in shown] == offline[::-1]
                assert errors == []
        finally:
            process.send_signal(signal.SIGTERM)
    assert process.returncode == 0
    lines = (workdir / "live.jsonl").read_text().splitlines()
    assert [json.loads(line)["text"] for line in lines] == offline
