"""Decoders of tiny causal models with random parameters, and trials to feed them with."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from modessm_jax.decoder import Decoder
from modessm_jax.runs.load import Run, build_model
from modessm_jax.runs.sessions import Choice
from modessm_jax.streaming.head import Head
from tests.models import (
    test_gru,
    test_modessm,
    test_multiscale,
    test_single_scale,
    test_transformer,
)

CHANNELS, SESSIONS = 4, {"a": 0, "b": 1}
MODELS: dict[str, dict[str, Any]] = {
    "gru": test_gru.SMALL,
    "transformer": test_transformer.SMALL,
    "modessm": test_modessm.SMALL | {"causal": True, "stride": 4},
    "multiscale": test_multiscale.SMALL | {"causal": True},
    "conformer": test_single_scale.SMALL | {"causal": True},
}


def run_of(name: str, **data: Any) -> Run:
    """A run whose parameters are large enough for every phoneme to be found somewhere."""
    config = {
        "model": MODELS[name] | {"session": "affine"},
        "data": data,
        "augment": {},
        "training": {"seed": 0},
    }
    functional = build_model(config, CHANNELS, len(SESSIONS))
    draw = np.random.default_rng(1)
    params = jax.tree.map(
        lambda x: np.asarray(x) + 0.4 * draw.standard_normal(x.shape, np.float32), functional.params
    )
    if "transducer" in params:
        params["transducer"]["bias"][0] = 0  # it begins high: nothing would be said
    return Run(config, SESSIONS, CHANNELS, functional, jax.device_put(params), 7)


def decoder_of(run: Run, head: str = "ctc", width: int = 1, **words: Any) -> Decoder:
    """The decoder of a run; `words` are a lexicon, an n-gram and options, if there are any."""
    chosen = Head(run.functional, run.params, head, width)
    if words:
        chosen.words = chosen.word_search(run.params)(*words.values())
    return Decoder(Path("run"), run, chosen, Choice())


def trial(bins: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(bins, CHANNELS)).astype(np.float32)


def pieces(bins: np.ndarray, seed: int = 0, most: int = 40) -> Iterator[np.ndarray]:
    """The bins in pieces of 1 to `most`, and an empty one."""
    random = np.random.default_rng(seed)
    yield bins[:0]
    while len(bins):
        cut = int(random.integers(1, most + 1))
        yield bins[:cut]
        bins = bins[cut:]
