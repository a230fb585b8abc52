"""Keeps what tuning measured beside the run, for as long as nothing it came from changes."""

import dataclasses
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from modessm_jax.decoding.lexicon import Lexicon
from modessm_jax.decoding.word_search import SearchOptions
from modessm_jax.training.posteriors import Posteriors
from modessm_jax.training.tuning import Grid, Tuning, draw_tuning
from modessm_jax.training.writers import write_json

# What of the options decides the errors, beside the weights of the grid.
_WIDTH = ("beam", "beam_threshold", "acoustic_scale")


def origin(
    posteriors: Posteriors, lexicon: Lexicon, lm: Path | None, base: SearchOptions, grid: Grid
) -> dict[str, Any]:
    """All that a tuning depends on, ready for JSON: checksums of the large parts, and the rest."""
    words = json.dumps({word: lexicon.words[word] for word in lexicon.words})
    facts = {
        "posteriors": posteriors.digest,
        "lexicon": hashlib.sha256(words.encode()).hexdigest(),
        "lm": None if lm is None else _checksum(lm),
        "width": {name: getattr(base, name) for name in _WIDTH},
        "grid": dataclasses.asdict(grid),
    }
    return json.loads(json.dumps(facts))


def cached(
    folder: Path, facts: dict[str, Any], measure: Callable[[], Tuning]
) -> tuple[Tuning, Path]:
    """The tuning of these facts: from `folder` if it is there, else measured, kept and drawn.

    Args:
        folder: made if need be; holds `tuning_<checksum>.json` and `.png` for each tuning.
        facts: from `origin`.
        measure: makes the tuning.

    Returns:
        The tuning, and its picture.
    """
    checksum = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:12]
    file = folder / f"tuning_{checksum}.json"
    picture = file.with_suffix(".png")
    if file.exists():
        return _read(file), picture
    tuning = measure()
    folder.mkdir(parents=True, exist_ok=True)
    draw_tuning(picture, tuning)
    figures = {"best": tuning.best._asdict(), "best_rate": tuning.best_rate}
    figures["crossed_rate"] = tuning.crossed_rate
    arrays = {name: getattr(tuning, name).tolist() for name in ("errors", "words", "second")}
    write_json(file, {"from": facts, **figures, **arrays})
    return tuning, picture


def _read(file: Path) -> Tuning:
    kept = json.loads(file.read_text(encoding="utf-8"))
    grid = {axis: tuple(values) for axis, values in kept["from"]["grid"].items()}
    return Tuning(
        Grid(**grid),
        np.array(kept["errors"], np.int64),
        np.array(kept["words"], np.int64),
        np.array(kept["second"], bool),
    )


def _checksum(file: Path) -> str:
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
