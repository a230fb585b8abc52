"""A folder in which what README and docs say can be done."""

import json
from pathlib import Path

import optax
import pytest

from configs.multiscale import get_config
from modessm_jax.data.recordings import read_recordings
from modessm_jax.language import kneser_ney
from modessm_jax.language.lexicon import build_lexicon
from modessm_jax.runs.checkpoints import Checkpoints
from modessm_jax.runs.history import History
from modessm_jax.runs.load import build_model, describe_data
from modessm_jax.runs.state import create_state
from modessm_jax.runtime.files import write_json
from modessm_jax.runtime.mesh import data_mesh
from tests.data.layout import write_split

SESSION = "sim.2025.01.07"
SMALLER = {
    "data": {"batch_size": 4, "buckets": 1},
    "model": {
        "d": 8, "layers": (1, 1, 1), "heads": 2, "ff": 8, "kernel": 3, "patches": (2, 4, 4),
        "causal": True, "chunk": 4,
    },
}  # fmt: skip


@pytest.fixture(scope="session")
def place(tmp_path_factory) -> Path:
    """An untrained run as RUN and runs/demo, its recordings as DATA, and a lexicon and n-gram."""
    place = tmp_path_factory.mktemp("place")
    for split in ("train", "val"):
        write_split(place / "DATA", SESSION, split, [40, 44, 36, 48])
    config = get_config("small")
    config.update(SMALLER)
    config.update({"data": {"root": str(place / "DATA")}})
    plain = json.loads(config.to_json())
    splits = [read_recordings(place / "DATA", split) for split in ("train", "val")]
    model = build_model(plain, splits[0].channels, len(splits[0].sessions))
    state = create_state(model.params, optax.identity(), data_mesh(), ema=False)
    Checkpoints(place / "RUN", keep=1).save_best(0, state, History())
    write_json(place / "RUN" / "config.json", plain)
    write_json(place / "RUN" / "dataset.json", describe_data(*splits))
    (place / "runs").mkdir()
    (place / "runs" / "demo").symlink_to(place / "RUN")
    (place / "lm").mkdir()
    build_lexicon(["a", "sentence"]).write(place / "lm" / "english.lexicon")
    kneser_ney.train([["a", "sentence"]], 2, 0.0).write(place / "lm" / "english.arpa")
    return place
