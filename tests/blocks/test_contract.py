"""Every block, causal and not, under the one contract; and the contract catches broken blocks."""

from typing import Any

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from modessm_jax.blocks.attention import Memory, RelativeAttention
from modessm_jax.blocks.block import Block, Serial
from modessm_jax.blocks.conformer import ConformerBlock
from modessm_jax.blocks.convolution import DepthwiseConv, GaussianSmoothing, StridedConv
from modessm_jax.blocks.flow import FlowBridge
from modessm_jax.blocks.fusion import CrossScaleFusion
from modessm_jax.blocks.lookahead import CentredSmoothing, Patches
from modessm_jax.blocks.transformer_block import TransformerBlock
from modessm_jax.models.gru import GRUDecoder
from modessm_jax.models.inputs import SessionAdaptation
from modessm_jax.models.modessm import ModeSSM
from modessm_jax.models.multiscale import MultiScale
from modessm_jax.models.single_scale import SingleScale
from modessm_jax.models.transformer import Transformer
from modessm_jax.sequence import Sequence
from tests.blocks.contract import verify

F32 = jnp.float32


def rngs() -> nnx.Rngs:
    return nnx.Rngs(0)


def conformer(chunk: int | None, left: int, kernel: int = 4) -> ConformerBlock:
    return ConformerBlock(
        8, heads=2, ff=8, kernel=kernel, rate=0.1, drop_path=0.1, chunk=chunk, left=left,
        dtype=F32, rngs=rngs(),
    )  # fmt: skip


def strided(
    causal: bool, channels: int = 4, kernel: int = 6, stride: int = 2, lookahead: int = 0
) -> StridedConv:
    return StridedConv(
        channels, 8, kernel=kernel, stride=stride, causal=causal, dropout=0.1, dtype=F32,
        rngs=rngs(), lookahead=lookahead,
    )  # fmt: skip


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("kernel", [1, 4, 5])
def test_depthwise(causal: bool, kernel: int) -> None:
    verify(DepthwiseConv(4, kernel, causal=causal, dtype=F32, rngs=rngs()), 4)


@pytest.mark.parametrize("causal", [True, False])
def test_smoothing(causal: bool) -> None:
    verify(GaussianSmoothing(3, 1.0, causal=causal, dtype=F32), 3)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(("kernel", "stride"), [(6, 2), (3, 3), (7, 2)])
def test_strided(causal: bool, kernel: int, stride: int) -> None:
    verify(strided(causal, kernel=kernel, stride=stride), 4)


def test_a_strided_convolution_that_looks_ahead_streams_late() -> None:
    block = strided(True, kernel=7, stride=2, lookahead=3)
    assert (block.back, block.ahead, block.delay) == (2, 3, 2)
    verify(block, 4)


# Chunks which see nothing before them are held by `test_attention`.
@pytest.mark.parametrize(("chunk", "left"), [(None, 0), (3, 6)])
def test_conformer(chunk: int | None, left: int) -> None:
    verify(conformer(chunk, left), 8, tight=chunk is None)


@pytest.mark.slow
def test_transformer_block() -> None:
    verify(TransformerBlock(8, heads=2, ff=8, rate=0.1, chunk=2, left=4, dtype=F32, rngs=rngs()), 8)


@pytest.mark.parametrize("causal", [pytest.param(True, marks=pytest.mark.slow), False])
def test_pathway(causal: bool) -> None:
    chunk = 2 if causal else None
    verify(Serial([strided(causal), conformer(chunk, 2)]), 4, tight=not causal)


@pytest.mark.parametrize(
    ("causal", "kernel", "layers"),
    [*(pytest.param(True, 3, n, marks=pytest.mark.slow) for n in (1, 2)), (False, 3, 1)],
)
def test_flow(causal: bool, kernel: int, layers: int) -> None:
    verify(FlowBridge(4, layers=layers, kernel=kernel, causal=causal, dtype=F32, rngs=rngs()), 4)


# Fast tests hold the models that smoothing, patches and Transformer blocks are part of.
@pytest.mark.slow
@pytest.mark.parametrize(("taps", "unit"), [(0, 1), (4, 4)])
def test_centred_smoothing(taps: int, unit: int) -> None:
    verify(CentredSmoothing(3, 1.0, taps=taps, unit=unit, dtype=F32), 3)


@pytest.mark.slow
def test_patches() -> None:
    verify(Patches(3, 5, 2, whole=True, dtype=F32), 3, tight=False)


class SelfAttention(Block):
    """Attention of a sequence to itself, as a block."""

    def __init__(self, chunk: int | None, left: int):
        self.attention = RelativeAttention(8, 2, chunk=chunk, left=left, dtype=F32, rngs=rngs())
        self.block_size = chunk or 1
        self.back, self.ahead = (None, None) if chunk is None else (left, 0)

    def __call__(self, x: Sequence, *, key: jax.Array | None = None) -> Sequence:
        x = x.masked()
        return x.with_values(self.attention.run(None, x, x)[1])

    def initial_state(self, batch: int) -> Memory:
        return self.attention.initial_state(batch)

    def step(self, state: Any, x: Sequence) -> tuple[Any, Sequence]:
        x = x.masked()
        state, values = self.attention.run(state, x, x)
        return state, x.with_values(values)


@pytest.mark.parametrize(("chunk", "left"), [(None, 0), (2, 4), (3, 0), (1, 2)])
def test_attention(chunk: int | None, left: int) -> None:
    verify(SelfAttention(chunk, left), 8)


class Fusion(Block):
    """Fusion as a block: three views of one sequence at rates 1, 1/2 and 1/4."""

    def __init__(self, chunk: int | None):
        self.fusion = CrossScaleFusion(
            8,
            ratios=(2, 2),
            heads=2,
            rate=0.1,
            final_norm=True,
            chunk=chunk,
            left=2,
            dtype=F32,
            rngs=rngs(),
        )
        self.stride, self.block_size = 2, 2 * (chunk or 2)
        self.back, self.ahead = (None, None) if chunk is None else (4, 0)

    def views(self, x: Sequence) -> list[Sequence]:
        x = x.masked()
        return [jax.tree.map(lambda leaf, rate=rate: leaf[:, ::rate], x) for rate in (1, 2, 4)]

    def __call__(self, x: Sequence, *, key: jax.Array | None = None) -> Sequence:
        _, y = self.fusion.run(None, *self.views(x.pad_to_multiple(4)))
        return jax.tree.map(lambda leaf: leaf[:, : -(-x.mask.shape[1] // 2)], y)

    def initial_state(self, batch: int) -> Any:
        return self.fusion.initial_state(batch)

    def step(self, state: Any, x: Sequence) -> tuple[Any, Sequence]:
        return self.fusion.run(state, *self.views(x))


@pytest.mark.parametrize("chunk", [None, 2])
def test_fusion(chunk: int | None) -> None:
    verify(Fusion(chunk), 8)


class Adaptation(Block):
    """Session adaptation as a block: row b of the batch is session b."""

    def __init__(self, kind: str):
        self.adaptation = SessionAdaptation(kind, channels=4, sessions=3, dtype=F32)

    def __call__(self, x: Sequence, *, key: jax.Array | None = None) -> Sequence:
        # The contract also runs rows alone, so all rows are of one session here.
        return self.adaptation(x, jnp.full((x.mask.shape[0],), 1))


@pytest.mark.parametrize("kind", ["affine", "layernorm", "none"])
def test_adaptation(kind: str) -> None:
    verify(Adaptation(kind), 4)


class Whole(Block):
    """The complete decoder as a block from features to phoneme logits."""

    def __init__(self, causal: bool, session: str = "affine"):
        self.model = MultiScale(
            channels=4, sessions=2, hides_bins=False, d=8, layers=(1, 1, 1), heads=2, ff=8,
            kernel=3, strides=(2, 4, 8), patches=(4, 8, 8), dropout=0.1, stochastic_depth=0.1,
            session=session, fusion_norm=True, smoothing=1.0, interctc=False, diphones=False,
            head_scale=1.0, causal=causal, chunk=8, left=8, dtype="float32", rngs=rngs(),
        )  # fmt: skip
        self.block_size, self.stride = self.model.block_size, self.model.stride
        self.back, self.ahead = None, 0 if causal else None

    def __call__(self, x: Sequence, *, key: jax.Array | None = None) -> Sequence:
        session = jnp.ones((x.mask.shape[0],), int)
        y = self.model(x, session).logits["phoneme"]
        return jax.tree.map(lambda leaf: leaf[:, : -(-x.mask.shape[1] // self.stride)], y)

    def initial_state(self, batch: int) -> Any:
        return self.model.initial_state(batch)

    def step(self, state: Any, x: Sequence) -> tuple[Any, Sequence]:
        state, outputs = self.model.step(state, x, jnp.ones((x.mask.shape[0],), int))
        return state, outputs.logits["phoneme"]


@pytest.mark.slow
@pytest.mark.parametrize(("causal", "session"), [(True, "affine"), (False, "layernorm")])
def test_multiscale(causal: bool, session: str) -> None:
    verify(Whole(causal, session), 4, tight=False)


class WholeModeSSM(Whole):
    """The state-space decoder, likewise."""

    def __init__(self, causal: bool, lookahead: int):
        self.model = ModeSSM(
            channels=4, sessions=2, hides_bins=False, smoothing=1.0, gate=4, session="affine",
            stem=3, patch=5, stride=2, d=8, layers=2, upper=1, heads=2, state=4, expand=2, kernel=3,
            modes=2, flow=1, predictor="stateless", joint=8, dropout=0.1, stochastic_depth=0.1,
            head_scale=1.0, causal=causal, lookahead=lookahead, dtype="float32", rngs=rngs(),
        )  # fmt: skip
        # Else no mode would change anything, and no stem.
        self.model.stem.taps[...] = jax.random.normal(jax.random.key(4), (3, 4))
        self.model.film.scale[...] = jax.random.normal(jax.random.key(3), (2, 8))
        self.block_size = self.stride = 2
        self.back, self.ahead = None, lookahead if causal else None
        self.delay = self.model.delay


@pytest.mark.slow
@pytest.mark.parametrize(("causal", "lookahead"), [(True, 0), (True, 3), (False, 0)])
def test_modessm(causal: bool, lookahead: int) -> None:
    verify(WholeModeSSM(causal, lookahead), 4, tight=False)


class WholeGRU(Whole):
    """The official baseline, likewise."""

    def __init__(self, bidirectional: bool):
        self.model = GRUDecoder(
            channels=4, sessions=2, hides_bins=False, session="affine", smoothing=0.5, taps=0,
            input_dropout=0.1, patch=5, stride=2, d=6, layers=2 - bidirectional, dropout=0.1,
            bidirectional=bidirectional, dtype="float32", rngs=rngs(),
        )  # fmt: skip
        self.block_size = self.stride = 2
        self.window = 5
        self.back, self.ahead = None, None if bidirectional else 4
        self.delay = 0 if bidirectional else self.model.delay


@pytest.mark.parametrize("bidirectional", [pytest.param(True, marks=pytest.mark.slow), False])
def test_gru(bidirectional: bool) -> None:
    verify(WholeGRU(bidirectional), 4, tight=False)


class WholeTransformer(Whole):
    """The time-masked Transformer, likewise."""

    def __init__(self):
        self.model = Transformer(
            channels=4, sessions=2, hides_bins=False, session="none", smoothing=0.5, patch=2,
            input_dropout=0.1, d=8, layers=1, heads=2, ff=8, dropout=0.1, causal=True, chunk=4,
            left=4, least_left=4, dtype="float32", rngs=rngs(),
        )  # fmt: skip
        self.block_size, self.stride = 4, 2
        self.back, self.ahead, self.delay = None, 1, self.model.delay


def test_transformer() -> None:
    verify(WholeTransformer(), 4, tight=False)


class WholeConformer(Whole):
    """The single-scale Conformer, likewise."""

    def __init__(self):
        self.model = SingleScale(
            channels=4, sessions=2, hides_bins=False, d=8, layers=2, heads=2, ff=8, kernel=3,
            stride=2, patch=4, dropout=0.1, stochastic_depth=0.1, session="affine", smoothing=1.0,
            interctc=False, head_scale=1.0, causal=True, chunk=4, left=4, dtype="float32",
            rngs=rngs(),
        )  # fmt: skip
        self.block_size, self.stride = 4, 2
        self.back, self.ahead = None, 0


# Its blocks are held by tests above; that the model hands on their states, by this one.
@pytest.mark.slow
def test_conformer_decoder() -> None:
    verify(WholeConformer(), 4, tight=False)


@pytest.mark.parametrize(("model", "options"), [(WholeGRU, [False]), (WholeTransformer, [])])
def test_a_stream_can_give_the_memory_of_its_state_away(model: Any, options: list[bool]) -> None:
    state = model(*options).initial_state(1)
    arrays = [leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(state)]
    assert len(set(arrays)) == len(arrays)


class LooksAtPadding(Block):
    """Broken: a mean over all frames, real or not."""

    back = ahead = None

    def __call__(self, x: Sequence, *, key: jax.Array | None = None) -> Sequence:
        return x.with_values(x.values - jnp.nan_to_num(x.values).mean(axis=1, keepdims=True))


class LeaksPadding(Block):
    """Broken: NaN in the padding reaches the gradient of the parameters."""

    def __init__(self):
        self.linear = nnx.Linear(3, 3, rngs=rngs())

    def __call__(self, x: Sequence, *, key: jax.Array | None = None) -> Sequence:
        return x.with_values(self.linear(x.values))


class LooksAhead(Block):
    """Broken: declares itself causal and reads the next frame."""

    def __call__(self, x: Sequence, *, key: jax.Array | None = None) -> Sequence:
        x = x.masked()
        return x.with_values(x.values + jnp.roll(x.values, -1, axis=1).at[:, -1].set(0.0))


class MixesBatch(Block):
    """Broken: an example's output depends on the others (as batch statistics do)."""

    def __call__(self, x: Sequence, *, key: jax.Array | None = None) -> Sequence:
        x = x.masked()
        return x.with_values(x.values * jnp.roll(x.values, 1, axis=0))


class FollowsTheLast(Block):
    """Broken: every example depends on the last of the batch, which alone is as it should be."""

    def __call__(self, x: Sequence, *, key: jax.Array | None = None) -> Sequence:
        x = x.masked()
        return x.with_values(x.values * (1 + jax.lax.stop_gradient(x.values - x.values[-1:])))


class LosesState(Block):
    """Broken: its steps forget the past."""

    back = 1

    def __call__(self, x: Sequence, *, key: jax.Array | None = None) -> Sequence:
        x = x.masked()
        return x.with_values(x.values + jnp.pad(x.values, ((0, 0), (1, 0), (0, 0)))[:, :-1])

    def step(self, state: Any, x: Sequence) -> tuple[Any, Sequence]:
        return state, self(x)


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (LooksAtPadding, "NaN leaves the padding"),
        (LeaksPadding, "NaN reaches the gradient"),
        (LooksAhead, "depends on frames outside the declared field"),
        (MixesBatch, "padding changes outputs"),
        (FollowsTheLast, "examples of a batch influence each other"),
        (LosesState, "gradients through steps differ"),
    ],
)
def test_broken_blocks_are_caught(broken: type[Block], message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        verify(broken(), 3)


def test_blocks_that_look_ahead_do_not_step() -> None:
    block = DepthwiseConv(4, 3, causal=False, dtype=F32, rngs=rngs())
    x = Sequence(jnp.zeros((1, 2, 4)), jnp.ones((1, 2), bool))
    with pytest.raises(ValueError, match="not causal"):
        block.step(block.initial_state(1), x)
