"""The recipes that stream look as far ahead as they say: beyond that, no bin changes a frame."""

import importlib
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.common import LOOKAHEADS, varied
from modessm_jax.models.build import build
from modessm_jax.sequence import Sequence

BINS, CHANNELS = 60, 2  # whole chunks of every variant
# Smaller models look as far: how far is a matter of strides, kernels and chunks.
NARROW: dict[str, dict[str, Any]] = {
    "gru": {"d": 4, "layers": 1},
    "transformer": {"d": 4, "layers": 1, "heads": 1, "ff": 4},
    "modessm": {"d": 4, "layers": 2, "heads": 1, "state": 2, "joint": 2, "gate": 2, "flow": 1},
    "multiscale": {"d": 4, "layers": (1, 1, 1), "heads": 1, "ff": 4},
}


def reach(name: str, variant: str) -> tuple[int, int]:
    """Bins after the end of a frame, the most of all frames: those needed, and those waited for."""
    model = importlib.import_module(f"configs.{name}").get_config(variant).to_dict()["model"]
    narrow = model | NARROW[name] | {"dtype": "float32"}
    built = build(narrow, channels=CHANNELS, sessions=1, hides_bins=False, seed=0)
    draw = np.random.default_rng(0)
    params = jax.tree.map(lambda x: x + draw.standard_normal(x.shape, np.float32), built.params)
    # In row t all bins from t on are others than in the last row.
    values = np.tile(draw.standard_normal((1, BINS, CHANNELS), np.float32), (BINS + 1, 1, 1))
    others = draw.standard_normal((BINS, CHANNELS), np.float32)
    for start in range(BINS):
        values[start, start:] = others[start:]
    lengths = jnp.full(BINS + 1, BINS)
    x = Sequence.from_lengths(jnp.asarray(values), lengths)
    session = jnp.zeros(BINS + 1, jnp.int32)
    found = jax.device_get(jax.jit(built.apply)(params, x, session).logits["phoneme"])
    stride = BINS // found.mask.shape[1]
    moved = (np.abs(found.values - found.values[-1:]) > 1e-5).any(axis=-1)
    # A frame depends on bin t where rows t and before differ from the last one, and later ones not.
    last = BINS - np.argmax(moved[:-1][::-1], axis=0) - 1
    real = np.flatnonzero(found.mask[0])
    ahead = last[real] - (real * stride + stride - 1)
    assert built.steps is not None
    waits = built.multiple - stride + built.steps.delay * stride
    return int(ahead.max()), waits


CASES = [
    pytest.param(name, variant, marks=[pytest.mark.slow] * (name in ("modessm", "multiscale")))
    for name, variant in itertools.product(NARROW, LOOKAHEADS)
]


@pytest.mark.parametrize(("name", "variant"), CASES)
def test_the_look_ahead_is_what_the_variant_says(name: str, variant: str) -> None:
    ahead, waits = reach(name, f"small+{variant}")
    assert ahead == LOOKAHEADS[variant]
    # A stream of the Transformer is late by whole chunks.
    assert waits == (10 if (name, variant) == ("transformer", "stream160") else ahead)


def test_what_is_no_variant_is_named() -> None:
    with pytest.raises(ValueError, match=r"'small\+demo' .* choose t12 or .*small\+stream80"):
        importlib.import_module("configs.gru").get_config("small+demo")
    with pytest.raises(ValueError, match=r"no variant 'stream80' of this config: choose a$"):
        varied(None, "stream80", a=lambda config: None)  # pyright: ignore
