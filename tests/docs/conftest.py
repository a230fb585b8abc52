"""A folder in which what README and docs say can be done."""

from pathlib import Path

import pytest

from configs.multiscale import get_config
from modessm_jax.language import kneser_ney
from modessm_jax.language.lexicon import build_lexicon
from modessm_jax.training import job
from tests.data.layout import write_split

SESSION = "sim.2025.01.07"
TINY = {
    "data": {"batch_size": 4, "buckets": 1},
    "augment": {"time_masks": 0},
    "model": {
        "d": 8, "layers": (1, 1, 1), "heads": 2, "ff": 8, "kernel": 3, "patches": (2, 4, 4),
    },
    "optimizer": {"warmup_steps": 0},
    "training": {"steps": 2, "eval_every": 2, "save_every": 2},
}  # fmt: skip


@pytest.fixture(scope="session")
def place(tmp_path_factory) -> Path:
    """A tiny run as RUN and runs/demo, its recordings as DATA, and lm/english.{lexicon,arpa}."""
    place = tmp_path_factory.mktemp("place")
    for split in ("train", "val"):
        write_split(place / "DATA", SESSION, split, [40, 44, 36, 48])
    config = get_config("small")
    config.update(TINY)
    config.update({"data": {"root": str(place / "DATA")}})
    job.run(config, place / "RUN")
    (place / "runs").mkdir()
    (place / "runs" / "demo").symlink_to(place / "RUN")
    (place / "lm").mkdir()
    build_lexicon(["a", "sentence"]).write(place / "lm" / "english.lexicon")
    kneser_ney.train([["a", "sentence"]], 2, 0.0).write(place / "lm" / "english.arpa")
    return place
