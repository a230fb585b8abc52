"""The decoder of a run gives what the commands give, from arrays, and names what is unfit."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import optax
import pytest

import modessm_jax
from experiments.decode import main as decode_words
from modessm_jax.data.recordings import read_recordings
from modessm_jax.evaluation.posteriors import best_path
from modessm_jax.evaluation.scoring import evaluate_run
from modessm_jax.language.lexicon import Lexicon
from modessm_jax.phonemes import symbols
from modessm_jax.runs.checkpoints import Checkpoints
from modessm_jax.runs.history import History
from modessm_jax.runs.load import build_shapes, describe_data, load_run
from modessm_jax.runs.state import create_state
from modessm_jax.runtime.mesh import data_mesh
from modessm_jax.words.nbest import read_nbest
from tests.data.layout import write_split
from tests.words.spoken import LEXICON, write_lm

LENGTHS = [60, 150, 66]
STRIDE = 4  # of the model's frames, in bins
MODEL = {
    **{"name": "gru", "d": 8, "layers": 1, "patch": 4, "stride": STRIDE, "taps": 3},
    **{"input_dropout": 0.0, "dropout": 0.1, "session": "affine", "smoothing": 1.0},
    **{"bidirectional": True, "dtype": "float32"},
}


@pytest.fixture(scope="module")
def workdir(tmp_path_factory) -> Path:
    """A run of two sessions whose best model has random parameters."""
    root, workdir = tmp_path_factory.mktemp("data"), tmp_path_factory.mktemp("run")
    for session in ("a", "b"):
        write_split(root, session, "val", LENGTHS)
    data = {"root": str(root), "sessions": [], "table": "", "batch_size": 4, "buckets": 1}
    config = {
        "data": {**data, "memory_gib": 1.0},
        "augment": {},
        "model": MODEL,
        "objective": {"normalize_by": "frames", "weights": {"phoneme": 1.0}},
        "training": {"seed": 3},
    }
    recordings = read_recordings(root, "val")
    (workdir / "config.json").write_text(json.dumps(config))
    (workdir / "dataset.json").write_text(json.dumps(describe_data(recordings)))
    random = np.random.default_rng(0)
    params = jax.tree.map(
        lambda shape: 0.7 * random.normal(size=shape.shape).astype(np.float32),
        build_shapes(config, recordings.channels, 2).params,
    )
    state = create_state(params, optax.sgd(0.1), data_mesh(), ema=False)
    Checkpoints(workdir, keep=1).save_best(7, state, History())
    return workdir


@pytest.fixture(scope="module")
def decoder(workdir):
    return modessm_jax.load(workdir)


@pytest.fixture(scope="module")
def recordings(workdir):
    return read_recordings(load_run(workdir).config["data"]["root"], "val")


@pytest.fixture(scope="module")
def decoded(decoder, recordings):
    features = [recordings.features(index) for index in range(len(recordings))]
    return decoder.decode(features, [trial.session for trial in recordings.trials])


def test_phonemes_are_those_of_an_evaluation(workdir, decoded):
    evaluation = evaluate_run(load_run(workdir), "val")
    assert len({tuple(result.phonemes) for result in evaluation.trials}) > 1
    for one, result in zip(decoded, evaluation.trials, strict=True):
        assert list(one.phonemes) == symbols(result.phonemes)
        assert one.words == one.word_times == ()
    example = evaluation.example
    _, spans = best_path(example.probabilities)
    shown = decoded[evaluation.trials.index(example.result)]
    seconds = np.minimum(spans * STRIDE, len(example.features)) / 50
    np.testing.assert_allclose(shown.times, seconds)
    np.testing.assert_allclose(
        shown.log_probabilities,
        [
            np.log(example.probabilities[start:end, phoneme]).mean()
            for phoneme, (start, end) in zip(example.result.phonemes, spans, strict=True)
        ],
        atol=1e-4,
    )


def test_a_trial_alone_is_decoded_as_among_others(decoder, decoded, recordings):
    for index, trial in enumerate(recordings.trials):
        alone = decoder.decode(recordings.features(index).astype(np.float64), trial.session)
        assert alone.phonemes == decoded[index].phonemes
        assert alone.times == decoded[index].times
        np.testing.assert_allclose(
            alone.log_probabilities, decoded[index].log_probabilities, atol=1e-4
        )
    first = recordings.features(0)
    assert (
        decoder.decode(first, "a").log_probabilities != decoder.decode(first, "b").log_probabilities
    )


def test_lengths_share_programs(workdir):
    decoder = modessm_jax.load(workdir)
    for bins in (1, 20, 100, 128):
        found = decoder.decode(np.ones((bins, decoder.channels), np.float32), session="a")
        assert all(end <= bins / 50 for _, end in found.times)
    assert decoder._score._cache_size() == 1  # pyright: ignore


def test_words_are_those_of_the_command(workdir, recordings, tmp_path):
    # Without one of the homophones: two sentences that differ in it can score alike.
    words = {word: said for word, said in LEXICON.words.items() if word != "two"}
    Lexicon(words).write(tmp_path / "lexicon")
    lexicon, lm = str(tmp_path / "lexicon"), str(write_lm(tmp_path))
    out = tmp_path / "words"
    arguments = ["--workdir", workdir, "--out", out, "--lexicon", lexicon, "--lm", lm]
    options = {"beam": 20, "lm_weight": 0.5, "word_score": 15.0}
    arguments += [part for name, value in options.items() for part in (f"--{name}", value)]
    decode_words([*map(str, arguments), "--processes", "1"])
    expected = [utterance.text.split() for utterance in read_nbest(out / "val.jsonl")]
    assert len(set(map(tuple, expected))) > 1
    decoder = modessm_jax.load(workdir, lexicon=lexicon, lm=lm, **options)
    assert "3 words" in repr(decoder)
    features = [recordings.features(index) for index in range(len(recordings))]
    found = decoder.decode(features, [trial.session for trial in recordings.trials])
    assert [list(one.words) for one in found] == expected
    for one, trial in zip(found, recordings.trials, strict=True):
        assert len(one.word_times) == len(one.words)
        edges = [edge for times in one.word_times for edge in times]
        assert edges == sorted(edges) and all(0 <= edge <= trial.bins / 50 for edge in edges)


def test_a_decoder_says_what_it_is(decoder, workdir):
    assert decoder.sessions == ("a", "b") and decoder.channels == 20
    assert decoder.config["model"]["name"] == "gru"
    for part in ("gru", str(workdir), "step 7", "20 channels", "2 sessions"):
        assert part in repr(decoder)


FITTING = np.zeros((30, 20), np.float32)


@pytest.mark.parametrize(
    ("features", "session", "message"),
    [
        (FITTING, "c", "features: session 'c' is not one of the model's: a, b"),
        (FITTING[:, :5], "a", "features: 5 channels, but the model was trained on 20"),
        (FITTING[0], "a", r"features: float32 of shape \(20,\), not floats \[bins, channels\]"),
        (FITTING[None], "a", "several trials as a list"),
        (FITTING.astype(int), "a", "features: int64 of shape"),
        (FITTING[:0], "a", r"features: float32 of shape \(0, 20\), .* give one bin or more"),
        (
            [FITTING, np.full_like(FITTING, np.nan)],
            "a",
            "trial 1 of the list: NaN or infinity in 20",
        ),
        (FITTING.astype(float) + 1e300, "a", "NaN or infinity"),
        ([], "a", "0 trials and 0 sessions; give at least one"),
        ([FITTING], ["a", "b"], "1 trials and 2 sessions"),
    ],
)
def test_what_is_unfit_is_named(decoder, features, session, message):
    with pytest.raises(ValueError, match=message):
        decoder.decode(features, session)


def test_a_run_of_some_channels_takes_them_from_all(workdir, decoder, tmp_path):
    shutil.copytree(workdir, tmp_path / "run")
    config = json.loads((workdir / "config.json").read_text())
    config["data"]["channels"] = "0-9,15-24"
    (tmp_path / "run" / "config.json").write_text(json.dumps(config))
    every = np.random.default_rng(3).normal(size=(60, 30)).astype(np.float32)
    chosen = np.delete(every, [*range(10, 15), *range(25, 30)], axis=1)
    some = modessm_jax.load(tmp_path / "run")
    assert some.decode(every, "a") == decoder.decode(chosen, "a")
    with pytest.raises(ValueError, match=r"features: has 20 channels, .* names 24"):
        some.decode(chosen, "a")


def test_an_n_gram_without_a_lexicon_is_refused(workdir):
    with pytest.raises(ValueError, match="need a lexicon"):
        modessm_jax.load(workdir, lm="lm.arpa")
    with pytest.raises(ValueError, match="need a lexicon"):
        modessm_jax.load(workdir, beam=20)


def test_without_the_packages_of_the_search_phonemes_are_decoded(workdir, monkeypatch):
    for name in [*sys.modules]:
        if name.startswith("modessm_jax.search.ctc"):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "flashlight.lib.text", None)
    assert modessm_jax.load(workdir).channels == 20
    with pytest.raises(ImportError, match=r"pip install 'modessm_jax\[words\]'"):
        modessm_jax.load(workdir, lexicon="lexicon")


def test_importing_the_package_is_cheap():
    program = "import sys, modessm_jax; print(sorted({'jax', 'numpy', 'flax'} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert found.stdout.strip() == "[]"
    with pytest.raises(AttributeError, match="no attribute 'lode'"):
        _ = modessm_jax.lode
