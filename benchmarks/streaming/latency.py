"""Seconds that a stream takes for every 80 ms of input, the model's step and the search apart."""

import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

import modessm_jax
from configs import conformer, gru, modessm, multiscale, transformer
from modessm_jax.data.recordings import read_recordings
from modessm_jax.decoder import Decoder
from modessm_jax.runs.load import Run, build_model, load_run
from modessm_jax.runs.sessions import Choice
from modessm_jax.streaming.head import Head

BINS = 4  # of 20 ms
CHANNELS, SENTENCE = 512, 600  # of T15, and bins of a sentence
# What makes a recipe causal, with as little delay as its blocks allow; in float32, for CPUs.
CAUSAL: dict[str, dict[str, Any]] = {
    "gru": {},
    "transformer": {},
    "modessm": {"causal": True},
    "multiscale": {"causal": True, "chunk": 8},
    "conformer": {"causal": True, "chunk": 4},
}
RECIPES = {
    "gru": gru,
    "transformer": transformer,
    "modessm": modessm,
    "multiscale": multiscale,
    "conformer": conformer,
}


class Latency(NamedTuple):
    """Seconds of every push of 80 ms, and of every end of a sentence."""

    model: np.ndarray
    search: np.ndarray
    total: np.ndarray
    processor: np.ndarray  # CPU seconds of all, which other programs on the machine hardly change
    finish: np.ndarray


def untrained(name: str, variant: str, head: str) -> tuple[Decoder, list[np.ndarray]]:
    """The decoder of a recipe with its first weights, and random features to feed it with."""
    config = RECIPES[name].get_config(variant).to_dict()
    config["model"] |= CAUSAL[name] | {"dtype": "float32"}
    sessions = {f"session {index}": index for index in range(45)}
    functional = build_model(config, CHANNELS, len(sessions))
    params = jax.device_put(functional.params)
    run = Run(config, sessions, CHANNELS, functional, params, 0)
    random = np.random.default_rng(0)
    trials = [random.normal(size=(SENTENCE, CHANNELS)).astype(np.float32) for _ in range(4)]
    return Decoder(Path(name), run, Head(functional, params, head, 1), Choice()), trials


def trained(workdir: Path, **options: Any) -> tuple[Decoder, list[np.ndarray]]:
    """The decoder of a run, and its val trials as they are stored."""
    decoder = modessm_jax.load(workdir, **options)
    data = load_run(workdir).config["data"]
    stored = read_recordings(data["root"], "val", sessions=data["sessions"])
    return decoder, [stored.features(index) for index in range(len(stored))]


def measure(decoder: Decoder, trials: list[np.ndarray], steps: int) -> Latency:
    """Pushes `steps` times 80 ms of the trials, one after the other."""
    stream = decoder.stream(decoder.sessions[0])
    each, ends = [], []
    for place in range(2):  # what is done for the first time
        stream.push(trials[0][BINS * place : BINS * place + BINS])
    stream.reset()
    place = 0
    while len(each) < steps:
        features = trials[place % len(trials)]
        for start in range(0, len(features) - BINS + 1, BINS):
            before, began = stream.seconds, (time.perf_counter(), time.process_time())
            stream.push(features[start : start + BINS])
            took = time.perf_counter() - began[0], time.process_time() - began[1]
            after = stream.seconds
            each.append((after.model - before.model, after.search - before.search, *took))
            if len(each) == steps:
                break
        began = time.perf_counter()
        stream.finish()
        ends.append(time.perf_counter() - began)
        stream.reset()
        place += 1
    model, search, total, processor = np.array(each).T
    return Latency(model, search, total, processor, np.array(ends))
