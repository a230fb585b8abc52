"""Weights of the field's models become runs; what could run a program is refused."""

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import modessm_jax
from experiments.checkpoints import main as checkpoints
from experiments.import_weights import main
from modessm_jax.evaluation.scoring import evaluate_run
from modessm_jax.official.files import FileError, read_settings, read_weights
from modessm_jax.runs.load import export, load_run
from tests.data.layout import CHANNELS, write_split

WIDTH, PATCH, STRIDE = 6, 4, 2
SETTINGS: dict[str, Any] = {
    "model": {"patch_size": PATCH, "patch_stride": STRIDE},
    "dataset": {"sessions": ["a", "b"]},
}


def weights() -> dict[str, np.ndarray]:
    """Of the official baseline, of two sessions."""
    shapes = {"h0": (1, 1, WIDTH), "out.weight": (41, WIDTH), "out.bias": (41,)}
    for day in range(2):
        shapes |= {f"day_weights.{day}": (CHANNELS, CHANNELS), f"day_biases.{day}": (1, CHANNELS)}
    for part, inputs in (("ih", PATCH * CHANNELS), ("hh", WIDTH)):
        shapes[f"gru.weight_{part}_l0"] = (3 * WIDTH, inputs)
        shapes[f"gru.bias_{part}_l0"] = (3 * WIDTH,)
    draw = np.random.default_rng(0)
    return {name: draw.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """A checkpoint whose names torch's wrappers have lengthened, and its settings."""
    wrapped = {f"_orig_mod.module.{name}": array for name, array in weights().items()}
    np.savez(tmp_path / "weights.npz", allow_pickle=False, **wrapped)
    (tmp_path / "args.yaml").write_text(yaml.safe_dump(SETTINGS))
    return tmp_path / "weights.npz", tmp_path / "args.yaml"


def arguments(files: tuple[Path, Path], out: Path, source: str = "nejm") -> list[str]:
    checkpoint, settings = map(str, files)
    return f"--from {source} --checkpoint {checkpoint} --args {settings} --out {out}".split()


def test_a_run_of_imported_weights_is_a_run(files, tmp_path: Path, capsys) -> None:
    root, out = tmp_path / "data", tmp_path / "run"
    for session in ("a", "b"):
        write_split(root, session, "val", [40, 52])
    main([*arguments(files, out), "--data_root", str(root)])
    assert "gru, 2 sessions" in capsys.readouterr().out
    run = load_run(out)
    assert (tuple(run.sessions), run.channels, run.step) == (("a", "b"), CHANNELS, 0)
    assert len(evaluate_run(run, "val").trials) == 4
    x = np.random.default_rng(1).normal(size=(40, CHANNELS)).astype(np.float32)
    assert modessm_jax.load(out).decode(x, session="b").phonemes
    export(out, tmp_path / "exported.npz")
    with np.load(tmp_path / "exported.npz") as arrays:
        kernel = arrays["gru/layers/0/0/recurrent"]
    np.testing.assert_array_equal(kernel, weights()["gru.weight_hh_l0"].T)
    official = tmp_path / "official.npz"
    checkpoints(["export", str(out), "--out", str(official), "--names", "nejm"])
    exported = read_weights(official)
    assert exported.keys() == weights().keys()
    for name, array in weights().items():
        np.testing.assert_allclose(exported[name], array, atol=1e-6)
    with pytest.raises(SystemExit, match="is not empty"):
        main(arguments(files, out))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dataset": {"sessions": ["a", "a"]}}, "none, or not all different"),
        ({"dataset": {}}, "the settings name no sessions: give --data_root"),
        ({"dataset": {"sessions": ["a"]}}, "name 1 sessions, the weights have 2"),
        ({"model": {"patch_stride": 9}}, "no model of these sizes .* skips bins"),
    ],
)
def test_settings_that_do_not_fit_are_refused(files, tmp_path: Path, changes, message) -> None:
    files[1].write_text(yaml.safe_dump(SETTINGS | changes))
    with pytest.raises(SystemExit, match=message):
        main(arguments(files, tmp_path / "run"))
    assert not (tmp_path / "run").exists()


class Hostile:
    """Makes a folder when it is unpickled."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.mark),)


def test_a_hostile_pickle_is_refused_as_settings(files, tmp_path: Path) -> None:
    mark, hostile = tmp_path / "harm", tmp_path / "args"
    hostile.write_bytes(pickle.dumps({"model": Hostile(mark)}))
    with pytest.raises(SystemExit, match=r"asks for posix\.mkdir"):
        main(arguments((files[0], hostile), tmp_path / "run"))
    assert not mark.exists()
    pickle.loads(hostile.read_bytes())
    assert mark.exists()  # so the refusal was needed


def test_a_hostile_array_is_refused_as_weights(tmp_path: Path) -> None:
    mark, hostile = tmp_path / "harm", tmp_path / "weights.npz"
    np.savez(hostile, h0=np.array([Hostile(mark)], object))
    with pytest.raises(FileError, match="as arrays alone"):
        read_weights(hostile)
    assert not mark.exists()


def test_plain_pickles_are_read_as_settings(tmp_path: Path) -> None:
    settings = {"strideLen": 4, "gaussianSmoothWidth": 2.0, "bidirectional": True}
    (tmp_path / "args").write_bytes(pickle.dumps(settings))
    assert read_settings(tmp_path / "args") == settings


@pytest.mark.parametrize(
    ("name", "content"),
    [("args.json", b"{"), ("args.yaml", b"[1, 2]"), ("args", b"\x80\x04"), ("args", b"text")],
)
def test_files_that_are_no_settings_are_named(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(FileError, match=name):
        read_settings(tmp_path / name)


def test_files_of_torch_are_read_as_weights_alone(shared_data: Path, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    for name in ("gru_digits", "tf_grid"):
        folder = shared_data / "parity" / name
        found, expected = (read_weights(folder / f) for f in ("state_dict.pt", "weights.npz"))
        assert found.keys() == expected.keys()
        for key, array in expected.items():
            np.testing.assert_array_equal(found[key], array)
    settings = shared_data / "parity/gru_digits/config.yaml"
    state = {"h0": torch.ones(2)}
    torch.save({"model_state_dict": state, "val_PER": np.float64(0.1)}, tmp_path / "best")
    np.testing.assert_array_equal(read_weights(tmp_path / "best")["h0"], [1.0, 1.0])
    main(arguments((shared_data / "parity/gru_digits/state_dict.pt", settings), tmp_path / "run"))
    out = tmp_path / "official.pt"
    checkpoints(["export", str(tmp_path / "run"), "--out", str(out), "--names", "nejm"])
    loaded = torch.load(out, weights_only=True)
    assert loaded.keys() == torch.load(shared_data / "parity/gru_digits/state_dict.pt").keys()
    torch.save({"model_state_dict": Hostile(tmp_path / "harm")}, tmp_path / "hostile")
    with pytest.raises(FileError, match="may run any program"):
        read_weights(tmp_path / "hostile")
    assert not (tmp_path / "harm").exists()


@pytest.mark.slow
@pytest.mark.parametrize(("source", "name"), [("nejm", "gru_grid"), ("brainaudio", "tf_grid")])
def test_imported_weights_score_as_their_authors_code_did(
    shared_data: Path, tmp_path: Path, source: str, name: str
) -> None:
    folder, root = shared_data / "parity" / name, shared_data / "grid_sentences"
    if not folder.is_dir() or not root.is_dir():
        pytest.skip(f"no weights of the field's models at {folder}, or no recordings at {root}")
    settings = read_settings(next(folder.glob("config.*")))
    prefix = "t15.20."  # that their code needed before the names of sessions
    if "dataset" in settings:
        names = [name.removeprefix(prefix) for name in settings["dataset"]["sessions"]]
        settings["dataset"]["sessions"] = names
    (tmp_path / "args.yaml").write_text(yaml.safe_dump(settings))
    files, out = (folder / "weights.npz", tmp_path / "args.yaml"), tmp_path / "run"
    main([*arguments(files, out, source), "--data_root", str(root)])
    found = evaluate_run(load_run(out), "val")
    meta = read_settings(folder / "meta.json")
    assert found.to_dict()["per"] == pytest.approx(meta["val_PER"], abs=1e-6)
    decoded = {
        f"{prefix}{result.trial.session}/trial_{result.trial.number:04d}": result.phonemes
        for result in found.trials
    }
    assert [decoded[trial] for trial in meta["trials"]] == meta["greedy"]
