"""Blocks: modules that run whole trials for training, or step by step in real time."""

import math
from collections.abc import Callable
from collections.abc import Sequence as Collection
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from modessm_jax.sequence import Sequence


class Block(nnx.Module):
    """A map of padded sequences that also maps their lengths.

    Time is cut into steps of `block_size` input frames, which give `block_size / stride` output
    frames. An output frame depends on the input frames of its own step, on at most `back` frames
    before that step and on at most `ahead` frames after it (`None`: without bound).

    An output frame is real when the first `window` input frames from the start of its stride are.

    A block with `ahead == 0` streams: it has `initial_state` and `step`, which accept any whole
    number of steps at once and give the same result as the whole call. Its latency is the wait for
    the step to fill: `block_size - 1` frames for the first frame of a step, none for the last.
    One that looks a few frames ahead can stream late: its steps give the output frames of the whole
    call after `delay` frames that are not real. Padding at the end of a stream brings out the last.
    """

    block_size: int = 1
    stride: int = 1
    back: int | None = 0
    ahead: int | None = 0
    window: int = 1
    delay: int = 0

    def __call__(self, x: Sequence, *, key: jax.Array | None = None) -> Sequence:
        """Maps a whole batch. `key` turns on dropout; without it the block is deterministic."""
        raise TypeError(f"{type(self).__name__} does not define __call__")

    def initial_state(self, batch: int) -> Any:
        """The state before the first frame of `batch` streams; empty for blocks without memory."""
        return ()

    def step(self, state: Any, x: Sequence) -> tuple[Any, Sequence]:
        """Maps the next frames, a whole number of steps.

        Raises:
            ValueError: see `check_step`.
            TypeError: the block depends on past frames and does not define this.
        """
        self.check_step(x)
        if self.back != 0:
            raise TypeError(f"{type(self).__name__} does not define step")
        return state, self(x)

    def run(self, state: Any, x: Sequence) -> tuple[Any, Sequence]:
        """`step`, or the whole call where `state` is None."""
        return (None, self(x)) if state is None else self.step(state, x)

    def check_step(self, x: Sequence) -> None:
        """Checks the frames given to `step`.

        Raises:
            ValueError: the block depends on later frames and does not stream late, or the frames do
                not fill whole steps.
        """
        if self.ahead != 0 and not self.delay:
            needs = "the whole trial" if self.ahead is None else f"{self.ahead} frames ahead"
            raise ValueError(f"{type(self).__name__} is not causal: it needs {needs}")
        require_whole_steps(x, self.block_size)


def require_whole_steps(x: Sequence, block_size: int) -> None:
    """Checks that the frames are a whole number of steps.

    Raises:
        ValueError: they are not.
    """
    frames = x.mask.shape[1]
    if frames % block_size:
        raise ValueError(
            f"{frames} frames do not fill steps of {block_size}; collect whole steps, and fill up "
            "the last one of a stream with padding"
        )


class LateBlock(Block):
    """Base of blocks whose stream, which may be late, keeps `kept` input frames and their mask."""

    kept: int = 0

    def __init__(self, channels: int, dtype: Any):
        self.channels, self.dtype = channels, dtype

    def initial_state(self, batch: int) -> Sequence:
        values = jnp.zeros((batch, self.kept, self.channels), self.dtype)
        return Sequence(values, jnp.zeros((batch, self.kept), bool))

    def extend(self, state: Sequence, x: Sequence) -> tuple[Sequence, Sequence]:
        """The frames to keep after the next ones, and the kept ones with these after them.

        Raises:
            ValueError: see `check_step`.
        """
        self.check_step(x)
        x = x.masked()
        values = jnp.concatenate([state.values, x.values.astype(self.dtype)], axis=1)
        both = Sequence(values, jnp.concatenate([state.mask, x.mask], axis=1))
        frames = x.mask.shape[1]
        return Sequence(both.values[:, frames:], both.mask[:, frames:]), both


# What the backward pass of a block keeps, beside the block's input: nothing, or the products with
# weights; all else it computes again.
_KEPT: dict[str, Any] = {
    "blocks": None,
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
}
REMAT = ("none", *_KEPT)


def rematerialised(call: Callable[..., Any], remat: str) -> Callable[..., Any]:
    """A function whose values the backward pass computes again instead of keeping them.

    Args:
        call: of a block, without side effects.
        remat: "none": all are kept; "blocks": only what it is given; "dots": also the products of
            matrices that have no batch, which are dear to compute.
    """
    return call if remat == "none" else jax.checkpoint(call, policy=_KEPT[remat])


class Serial(Block):
    """Blocks one after the other, each rematerialised in training as `remat` says."""

    def __init__(self, blocks: Collection[Block], remat: str = "none"):
        self.blocks, self.remat = nnx.List(blocks), remat
        for block in blocks:
            self.block_size = math.lcm(self.block_size, self.stride * block.block_size)
            self.stride *= block.stride
        self.back, self.ahead = (_reach(blocks, side) for side in ("back", "ahead"))

    def __call__(self, x: Sequence, *, key: jax.Array | None = None) -> Sequence:
        for block, block_key in zip(self.blocks, split(key, len(self.blocks)), strict=True):
            x = rematerialised(block.__call__, self.remat)(x, key=block_key)
        return x

    def initial_state(self, batch: int) -> Any:
        return tuple(block.initial_state(batch) for block in self.blocks)

    def step(self, state: Any, x: Sequence) -> tuple[Any, Sequence]:
        states = []
        for block, block_state in zip(self.blocks, state, strict=True):
            block_state, x = block.step(block_state, x)
            states.append(block_state)
        return tuple(states), x


def _reach(blocks: Collection[Block], side: str) -> int | None:
    """How many input frames "back" or "ahead" of its step a chain of blocks depends on.

    Frames beyond a step belong to neighbouring steps, which are needed whole.
    """
    total = 0
    for block in reversed(blocks):
        reach = getattr(block, side)
        if reach is None:
            return None
        steps = -(-total // (block.block_size // block.stride))
        total = steps * block.block_size + reach
    return total


def split(key: jax.Array | None, count: int) -> list[jax.Array | None]:
    """One key for each of `count` users, or `None` for each when there is no randomness."""
    return [None] * count if key is None else list(jax.random.split(key, max(count, 1)))[:count]


class Dropout(nnx.Module):
    """Drops features of an example for its whole duration (Gal and Ghahramani 2016).

    Sharing the draw over time regularises as well, and it spares the random bits of every frame,
    which on CPU would cost as much as the matrix products around them. Without a key nothing is
    dropped.
    """

    shared_axes: tuple[int, ...] = (1,)

    def __init__(self, rate: float):
        self.layer = nnx.Dropout(rate, broadcast_dims=self.shared_axes)

    def __call__(
        self, x: Float[Array, "batch time d"], key: jax.Array | None
    ) -> Float[Array, "batch time d"]:
        return self.layer(x, deterministic=key is None, rngs=key)


class FrameDropout(Dropout):
    """Drops features of each frame by itself (Srivastava et al. 2014), as the field's models do."""

    shared_axes: tuple[int, ...] = ()


class DropPath(Dropout):
    """Drops a residual branch of an example altogether: stochastic depth (Huang et al. 2016)."""

    shared_axes = (1, 2)
