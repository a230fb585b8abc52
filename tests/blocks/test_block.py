"""Blocks in series, what they declare of their reach, and the two kinds of dropout."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from modessm_jax.blocks.block import REMAT, Block, Dropout, DropPath, Serial, split
from modessm_jax.blocks.convolution import DepthwiseConv, StridedConv
from modessm_jax.sequence import Sequence

RATE, ROWS, TIME, D = 0.25, 400, 6, 5


def strided(channels: int, kernel: int, stride: int) -> StridedConv:
    return StridedConv(
        channels, 3, kernel=kernel, stride=stride, causal=False, dropout=0.0, dtype=jnp.float32,
        rngs=nnx.Rngs(0),
    )  # fmt: skip


@pytest.mark.parametrize("strides", [(1, 2, 3), (2, 2, 1), (3, 1, 2)])
def test_a_series_reaches_no_further_than_it_declares_and_a_step_short_of_it(strides) -> None:
    series = Serial([strided(3, stride + 2, stride) for stride in strides])
    assert series.stride == series.block_size == np.prod(strides)
    assert series.back is not None and series.ahead is not None
    # Which input frames a frame depends on, followed backwards through each window.
    first = last = 10
    for stride in reversed(strides):
        first, last = stride * first - 1, stride * (last + 1)
    start = 10 * series.stride
    assert start - series.back <= first <= start - series.back + series.block_size
    end = start + series.block_size + series.ahead - 1
    assert end - series.block_size <= last <= end


def test_a_series_is_its_blocks_one_after_the_other() -> None:
    x = Sequence(jax.random.normal(jax.random.key(0), (2, 12, 3)), jnp.ones((2, 12), bool))
    blocks = [strided(3, 4, 2), strided(3, 3, 3)]
    expected = blocks[1](blocks[0](x))
    found = Serial(blocks)(x)
    np.testing.assert_array_equal(found.values, expected.values)
    assert found.mask.shape == (2, 2)


class Waves(Block):
    """Of a product it needs the sine and the cosine for its gradient."""

    def __init__(self) -> None:
        self.weight = nnx.Param(jnp.arange(9.0).reshape(3, 3) / 9)

    def __call__(self, x: Sequence, *, key: jax.Array | None = None) -> Sequence:
        return x.with_values(jnp.sin(jnp.cos(x.values @ self.weight[...])))


def test_what_is_computed_again_changes_no_gradient_and_need_not_be_kept() -> None:
    x = Sequence(jnp.arange(12.0).reshape(1, 4, 3) / 12, jnp.ones((1, 4), bool))
    gradients, kept = {}, {}
    for remat in REMAT:
        graph, params = nnx.split(Serial([Waves(), Waves()], remat))

        def loss(params: Any, graph: Any = graph) -> Any:
            return nnx.merge(graph, params)(x).values.sum()

        residuals = jax.eval_shape(lambda params, loss=loss: jax.vjp(loss, params)[1], params)
        kept[remat] = sum(leaf.shape == (1, 4, 3) for leaf in jax.tree.leaves(residuals))
        gradients[remat] = np.stack([leaf[...] for leaf in jax.tree.leaves(jax.grad(loss)(params))])
    np.testing.assert_allclose(gradients["blocks"], gradients["none"], rtol=1e-6)
    np.testing.assert_allclose(gradients["dots"], gradients["none"], rtol=1e-6)
    assert kept["blocks"] < kept["dots"] < kept["none"]


def test_one_look_without_bound_leaves_the_series_without_bound() -> None:
    class Unbounded(Block):
        back = ahead = None

    convolution = DepthwiseConv(3, 3, causal=False, dtype=jnp.float32, rngs=nnx.Rngs(0))
    series = Serial([convolution, Unbounded(), convolution])
    assert (series.back, series.ahead) == (None, None)


def test_a_block_defines_its_call_and_steps_only_within_its_step() -> None:
    class Sees(Block):
        def __init__(self, back: int, ahead: int | None):
            self.back, self.ahead = back, ahead

    x = Sequence(jnp.zeros((1, 2, 3)), jnp.ones((1, 2), bool))
    with pytest.raises(TypeError, match="Block does not define"):
        Block()(x)
    for ahead, needs in ((1, "1 frames ahead"), (None, "the whole trial")):
        with pytest.raises(ValueError, match=f"Sees is not causal: it needs {needs}"):
            Sees(0, ahead).step((), x)
    with pytest.raises(TypeError, match="Sees does not define step"):
        Sees(1, 0).step((), x)


def test_users_draw_from_keys_of_their_own() -> None:
    assert split(None, 3) == [None] * 3
    assert split(jax.random.key(0), 0) == []
    drawn = {
        float(jax.random.uniform(key)) for key in split(jax.random.key(0), 3) if key is not None
    }
    assert len(drawn) == 3


@pytest.mark.parametrize(("kind", "shape"), [(Dropout, (ROWS, 1, D)), (DropPath, (ROWS, 1, 1))])
def test_what_is_dropped_is_dropped_for_the_whole_trial(kind, shape) -> None:
    layer, x = kind(RATE), jnp.ones((ROWS, TIME, D))
    np.testing.assert_array_equal(layer(x, None), x)
    kept = np.asarray(layer(x, jax.random.key(1)))
    drawn = np.asarray(kept[tuple(slice(size) for size in shape)])
    np.testing.assert_array_equal(kept, np.broadcast_to(drawn, x.shape))
    assert set(np.unique(drawn)) == {0.0, np.float32(1 / (1 - RATE))}
    # Four standard deviations of that many draws.
    spread = 4 * np.sqrt(RATE * (1 - RATE) / drawn.size)
    assert abs((drawn == 0).mean() - RATE) < spread
