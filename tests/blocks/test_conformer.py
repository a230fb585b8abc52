"""The Conformer block against its parts added up by hand; masks and steps are the contract's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jaxtyping import Float

from modessm_jax.blocks.conformer import ConformerBlock, FeedForward
from modessm_jax.sequence import Sequence

D = 8


def block(rate: float = 0.0, chunk: int | None = None) -> ConformerBlock:
    made = ConformerBlock(
        D, heads=2, ff=12, kernel=3, rate=rate, drop_path=rate, chunk=chunk, left=2,
        dtype=jnp.float32, rngs=nnx.Rngs(0),
    )  # fmt: skip
    params = nnx.state(made, nnx.Param)
    keys = iter(jax.random.split(jax.random.key(1), len(jax.tree.leaves(params))))
    nnx.update(
        made, jax.tree.map(lambda p: p + 0.2 * jax.random.normal(next(keys), p.shape), params)
    )
    return made


def normed(norm: nnx.LayerNorm, h: np.ndarray) -> Float[np.ndarray, "batch time d"]:
    centred = h - h.mean(axis=-1, keepdims=True)
    scaled = centred / np.sqrt(centred.var(axis=-1, keepdims=True) + 1e-6)
    assert norm.scale is not None and norm.bias is not None
    return scaled * np.asarray(norm.scale[...]) + np.asarray(norm.bias[...])


def linear(layer: nnx.Linear, h: np.ndarray) -> Float[np.ndarray, "batch time d"]:
    assert layer.bias is not None
    return h @ np.asarray(layer.kernel[...]) + np.asarray(layer.bias[...])


def sigmoid(h: np.ndarray) -> Float[np.ndarray, "batch time d"]:
    return 1 / (1 + np.exp(-h))


def fed(part: FeedForward, h: np.ndarray) -> Float[np.ndarray, "batch time d"]:
    hidden = linear(part.expand, normed(part.norm, h))
    return linear(part.contract, hidden * sigmoid(hidden))


def test_the_block_is_the_sum_of_its_branches_in_the_published_order() -> None:
    made = block()
    x = Sequence(jax.random.normal(jax.random.key(2), (2, 7, D)), jnp.ones((2, 7), bool))
    h = np.asarray(x.values, np.float64)
    h = h + 0.5 * fed(made.first, h)

    attended = x.with_values(jnp.asarray(normed(made.attention_norm, h), jnp.float32))
    h = h + np.asarray(made.attention.run(None, attended, attended)[1])

    value, gate = np.split(linear(made.gate, normed(made.conv_norm, h)), 2, axis=-1)
    gated = x.with_values(jnp.asarray(value * sigmoid(gate), jnp.float32))
    filtered = normed(made.filtered_norm, np.asarray(made.conv(gated).values))
    h = h + linear(made.conv_out, filtered * sigmoid(filtered))

    h = h + 0.5 * fed(made.second, h)
    np.testing.assert_allclose(made(x).values, normed(made.final_norm, h), atol=2e-5)


def test_a_trial_that_drops_every_branch_is_only_normalised() -> None:
    made = block(rate=0.7)
    x = Sequence(jax.random.normal(jax.random.key(3), (64, 5, D)), jnp.ones((64, 5), bool))
    found = np.asarray(made(x, key=jax.random.key(4)).values)
    expected = normed(made.final_norm, np.asarray(x.values))
    same = np.isclose(found, expected, atol=1e-5).all(axis=(1, 2))
    # Four branches, each dropped with 0.7: 0.24 of the trials keep none, 15.4 of 64.
    assert 5 <= same.sum() <= 28


def test_without_chunks_there_are_no_steps() -> None:
    made = block()
    x = Sequence(jnp.zeros((1, 2, D)), jnp.ones((1, 2), bool))
    with pytest.raises(ValueError, match="not causal"):
        made.step(made.initial_state(1), x)
