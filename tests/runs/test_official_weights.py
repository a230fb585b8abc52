"""The field's models with their authors' weights give their authors' logits."""

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import yaml

from modessm_jax.decoding.ctc import greedy, to_lists
from modessm_jax.losses.ctc import ctc_cost
from modessm_jax.runs.load import build_shapes
from modessm_jax.runs.official_weights import WeightsError, nejm
from modessm_jax.sequence import Sequence

LOGITS, NATS = 2e-5, 1e-4  # of the largest logit; of each trial


def read(path: Path) -> dict[str, np.ndarray]:
    with np.load(path) as arrays:
        return {name: arrays[name] for name in arrays}


@pytest.fixture
def material(shared_data: Path) -> Path:
    folder = shared_data / "parity"
    if not folder.is_dir():
        pytest.skip(f"no weights of the field's models at {folder}")
    return folder


def score(folder: Path, model: dict[str, Any], params: Any, stored: str = "logits") -> Any:
    """Runs a model, and compares its logits on real frames and its nats with those stored."""
    batch = read(folder / "batch.npz")
    config = {"model": model, "augment": {}, "training": {"seed": 0}}
    sessions = len(params["adaptation"]["offset"]) if "adaptation" in params else 1
    built = build_shapes(config, batch["input_features"].shape[2], sessions)
    assert jax.tree.map(np.shape, params) == jax.tree.map(np.shape, built.params)

    @jax.jit
    def run(params: Any, values: Any, bins: Any, session: Any, ids: Any, lengths: Any) -> Any:
        features = Sequence.from_lengths(values, bins)
        logits = built.apply(params, features, session).logits["phoneme"]
        nats = ctc_cost(logits, Sequence.from_lengths(ids, lengths)).nats
        return logits, nats, greedy(logits)

    names = ("input_features", "n_time_steps", "day", "labels", "label_lengths")
    logits, nats, phonemes = jax.device_get(run(params, *(batch[name] for name in names)))
    frames = batch[stored].shape[1]
    real = logits.mask[:, :frames]
    assert real.sum(axis=1).tolist() == batch["output_lengths"].tolist()
    assert not logits.mask[:, frames:].any()
    off = np.abs(logits.values[:, :frames] - batch[stored])[real].max()
    off /= np.abs(batch[stored][real]).max()
    assert off < LOGITS
    far = np.abs(nats - batch["ctc_loss_per_trial"]).max()
    print(f"{folder.name} {stored}: logits off by {off:.1e} of their largest, nats by {far:.1e}")
    return far, to_lists(phonemes)


@pytest.mark.parametrize("name", ["gru_grid", "gru_digits"])
def test_the_baseline(material: Path, name: str) -> None:
    folder = material / name
    args = yaml.safe_load((folder / "config.yaml").read_text())["model"]
    config = {
        "name": "gru", "session": "affine", "smoothing": 2.0, "input_dropout": 0.2,
        "patch": args["patch_size"], "stride": args["patch_stride"], "d": args["n_units"],
        "layers": args["n_layers"], "dropout": 0.4, "bidirectional": False, "dtype": "float32",
    }  # fmt: skip
    far, phonemes = score(folder, config, nejm(read(folder / "weights.npz")))
    assert far < NATS
    assert phonemes == json.loads((folder / "meta.json").read_text())["greedy"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"h0": None}, "no 'h0', but "), ({"more": np.zeros(1)}, "no use for the weights more")],
)
def test_weights_of_something_else_are_named(changes: dict[str, Any], message: str) -> None:
    weights = {
        "day_weights.0": np.eye(2), "day_biases.0": np.zeros((1, 2)), "h0": np.zeros((1, 1, 2)),
        "gru.weight_ih_l0": np.zeros((6, 4)), "gru.weight_hh_l0": np.zeros((6, 2)),
        "gru.bias_ih_l0": np.zeros(6), "gru.bias_hh_l0": np.zeros(6),
        "out.weight": np.zeros((41, 2)), "out.bias": np.zeros(41),
    }  # fmt: skip
    nejm(weights)
    changed = {name: array for name, array in (weights | changes).items() if array is not None}
    with pytest.raises(WeightsError, match=message):
        nejm(changed)
