"""The channel gate keeps the contract, and its statistics are those of the real frames."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from modessm_jax.blocks.channel_gate import PRIOR_FRAMES, ChannelGate
from modessm_jax.sequence import Sequence
from tests.blocks.contract import verify


def gate(causal: bool, dtype: Any = jnp.float32) -> ChannelGate:
    return ChannelGate(4, hidden=5, causal=causal, dtype=dtype, rngs=nnx.Rngs(0))


def trial(frames: int, seed: int = 0) -> np.ndarray:
    """One trial of 4 channels with levels and spreads of their own."""
    rng = np.random.default_rng(seed)
    return rng.normal([0.0, 1.0, -2.0, 0.5], [1.0, 0.3, 2.0, 1.0], size=(frames, 4))


def run(block: ChannelGate, values: np.ndarray) -> np.ndarray:
    x = Sequence(jnp.asarray(values[None], jnp.float32), jnp.ones((1, len(values)), bool))
    return np.asarray(block(x).values[0])


def definition(block: ChannelGate, values: np.ndarray) -> np.ndarray:
    """The last frame of a trial, from its statistics in float64."""
    mean = values.sum(axis=0) / (len(values) + PRIOR_FRAMES)
    square = ((values**2).sum(axis=0) + PRIOR_FRAMES) / (len(values) + PRIOR_FRAMES)
    deviation = np.sqrt(square - mean**2)
    params = jax.tree.map(np.asarray, nnx.to_pure_dict(nnx.state(block, nnx.Param)))
    seen = np.concatenate([mean, np.log(deviation)])
    hidden = np.maximum(seen @ params["squeeze"]["kernel"] + params["squeeze"]["bias"], 0)
    logits = hidden @ params["excite"]["kernel"] + params["excite"]["bias"]
    return (values[-1] - mean) / deviation / (1 + np.exp(-logits))


@pytest.mark.parametrize("causal", [True, False])
def test_gate(causal: bool) -> None:
    verify(gate(causal), 4)


@pytest.mark.parametrize("causal", [True, False])
def test_equals_the_definition(causal: bool) -> None:
    values, block = trial(30), gate(causal)
    found = run(block, values)
    np.testing.assert_allclose(found[-1], definition(block, values), atol=1e-5)
    if causal:
        np.testing.assert_allclose(found[11], definition(block, values[:12]), atol=1e-5)


def test_long_trials_are_normalised() -> None:
    block = gate(causal=False)
    block.excite.kernel[...] = jnp.zeros_like(block.excite.kernel[...])  # every weight one half
    normed = 2 * run(block, trial(20_000))
    np.testing.assert_allclose(normed.mean(axis=0), 0.0, atol=0.02)
    np.testing.assert_allclose(normed.std(axis=0), 1.0, atol=0.04)


def test_the_level_of_a_trial_reaches_the_weights() -> None:
    """Louder by half, a trial is normalised to nearly the same frames, but weighted otherwise."""
    block, values = gate(causal=False), trial(20_000)
    quiet, loud = run(block, values), run(block, 1.5 * values)
    ratio = np.median(loud / quiet, axis=0)
    assert (np.abs(ratio - 1) > 0.02).any()


def test_early_frames_and_silent_channels_are_not_blown_up() -> None:
    values = trial(40)
    values[:, 3] = 0.0
    found = run(gate(causal=True), values)
    assert np.isfinite(found).all()
    assert (np.abs(found) <= 1.5 * np.abs(values) + 1.0).all()
    assert (found[:, 3] == 0.0).all()


def test_half_precision_keeps_full_sums() -> None:
    half, full = gate(True, jnp.bfloat16), gate(True)
    x = Sequence(jnp.asarray(trial(300)[None], jnp.float32), jnp.ones((1, 300), bool))
    state, y = half.step(half.initial_state(1), x)
    assert y.values.dtype == jnp.bfloat16
    assert all(part.dtype == jnp.float32 for part in state)
    np.testing.assert_allclose(y.values.astype(jnp.float32), full(x).values, atol=0.03)


def test_whole_trials_do_not_stream() -> None:
    block = gate(causal=False)
    with pytest.raises(ValueError, match="not causal"):
        block.step(block.initial_state(1), Sequence(jnp.zeros((1, 2, 4)), jnp.ones((1, 2), bool)))
