"""The contract every block keeps, checked by one function (DESIGN.md: whole or step by step).

`verify` takes anything with the face of a `Block`: `__call__`, `initial_state`, `step`,
`block_size`, `stride`, `back`, `ahead`, `window`, `delay`.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from modessm_jax.sequence import Sequence

TOLERANCE = 2e-5
ALL = -1  # all output frames, not one


def verify(block: Any, channels: int, *, tight: bool = True, seed: int = 0) -> None:
    """Checks padding, batch independence, the declared field of view, and step == whole.

    `tight` also demands that the declared field is reached, not only respected; compositions
    declare a bound.
    """
    graph, params = nnx.split(block, nnx.Param)
    params = _perturbed(params, seed)  # zero-initialised parameters would hide mistakes

    @jax.jit
    def pull(params: Any, x: Sequence, frame: int) -> tuple[Sequence, Any]:
        """The outputs, and the gradients of a scalar of the real ones or of one (`_probe`)."""

        def scalar(params: Any, values: jax.Array) -> tuple[jax.Array, Sequence]:
            y = nnx.merge(graph, params)(x.with_values(values))
            return _probe(y, frame), y

        gradient = jax.value_and_grad(scalar, argnums=(0, 1), has_aux=True)
        (_, y), grads = gradient(params, x.values)
        return y, grads

    time = max(5, 12 // block.block_size) * block.block_size
    x = _random(channels, [time, time - block.block_size // 2 - 1], seed)
    _check_padding(pull, params, x, block)
    _check_batch(pull, params, x)
    _check_field(pull, params, x, block, tight)
    if block.ahead == 0 or block.delay:
        _check_steps(graph, pull, params, x, block)
        if block.block_size > 1:
            _check_whole_steps(x, block)


# What is done to results is done in NumPy: JAX would compile each operation for each shape.


def difference(a: Any, b: Any) -> float:
    """Largest absolute difference between two trees, relative to the larger of 1 and their size.

    NaN in either is NaN here, which is not below any tolerance.
    """
    a, b = jax.device_get((a, b))
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    sizes = [float(np.max(np.abs(p - q) / np.maximum(1, np.max(np.abs(q))))) for p, q in pairs]
    return float(np.max([0.0, *sizes]))  # Python's max would take 0 for the larger of 0 and NaN


def _perturbed(params: Any, seed: int) -> Any:
    draw = np.random.default_rng(seed + 1)
    return jax.tree.map(
        lambda p: jnp.asarray(np.asarray(p) + 0.1 * draw.standard_normal(p.shape), p.dtype), params
    )


def _random(channels: int, lengths: list[int], seed: int) -> Sequence:
    shape = (len(lengths), max(lengths), channels)
    values = np.random.default_rng(seed).standard_normal(shape, np.float32)
    mask = np.arange(shape[1])[None] < np.array(lengths)[:, None]
    return Sequence(jnp.asarray(values), jnp.asarray(mask))


def _spoilt(x: Sequence) -> Sequence:
    """The same with NaN in its padding."""
    mask = np.asarray(x.mask)[..., None]
    return x.with_values(jnp.asarray(np.where(mask, np.asarray(x.values), np.float32("nan"))))


def _real(y: Sequence) -> np.ndarray:
    """The real values; zero elsewhere."""
    return np.where(np.asarray(y.mask)[..., None], np.asarray(y.values), 0)


def _probe(y: Sequence, frame: int) -> jax.Array:
    """A fixed random projection of the real frames, or of one alone; it weighs each by itself."""
    time, d = y.values.shape[1:]
    frames = jnp.arange(time)[:, None]
    weights = jnp.sin(frames * 1.7 + jnp.arange(d)[None, :] * 0.9)
    weights = jnp.where((frame == ALL) | (frames == frame), weights, 0.0)
    return jnp.sum(y.masked().values.astype(jnp.float32) * weights[None])


def _check_padding(pull: Callable[..., Any], params: Any, x: Sequence, block: Any) -> None:
    """Alone, padded, and with NaN in the padding: the same outputs and gradients."""
    y, (grad_params, grad_x) = jax.device_get(pull(params, x, ALL))
    lengths = np.asarray(x.mask).sum(axis=1)
    frames = np.maximum(0, (lengths - block.window) // block.stride + 1)
    begun = np.arange(y.mask.shape[1])[None] < frames[:, None]
    assert np.array_equal(y.mask, begun), "output lengths are not the windows that fit"

    z, (other_params, other_x) = pull(params, _spoilt(x), ALL)
    assert difference(_real(z), _real(y)) < TOLERANCE, "NaN leaves the padding"
    assert difference(other_params, grad_params) < TOLERANCE, "NaN reaches the gradient"
    assert difference(other_x, grad_x) < TOLERANCE, "NaN reaches the gradient"

    row = 1
    length, count = int(lengths[row]), int(frames[row])
    values = np.asarray(x.values)[row : row + 1, :length]
    alone = Sequence(jnp.asarray(values), jnp.asarray(np.ones((1, length), bool)))
    z, (_, alone_x) = jax.device_get(pull(params, alone, ALL))
    assert difference(z.values[0, :count], y.values[row, :count]) < TOLERANCE, (
        "padding changes outputs"
    )
    assert difference(alone_x[0], grad_x[row, :length]) < TOLERANCE, "padding changes gradients"


def _check_batch(pull: Callable[..., Any], params: Any, x: Sequence) -> None:
    """An example's gradient does not change when its neighbour does."""
    changed = np.array(x.values)
    changed[1] *= -1.3
    _, (_, before) = jax.device_get(pull(params, x, ALL))
    _, (_, after) = jax.device_get(pull(params, x.with_values(jnp.asarray(changed)), ALL))
    assert difference(after[0], before[0]) < TOLERANCE, "examples of a batch influence each other"


def _check_field(
    pull: Callable[..., Any], params: Any, x: Sequence, block: Any, tight: bool
) -> None:
    """Gradients vanish exactly beyond the declared field, and reach its ends.

    They are those of the first example, all of whose frames are real, one output frame at a time.
    """
    time, size = x.mask.shape[1], block.block_size
    outputs = range(-(-time // block.stride))
    gradients = jax.device_get([pull(params, x, frame)[1][1] for frame in outputs])
    reached = np.any(np.stack(gradients)[:, 0] != 0, axis=-1)  # [output frames, time]
    start = np.arange(len(reached)) * block.stride // size * size
    position = np.arange(time)[None, :]
    back = time if block.back is None else block.back
    ahead = time if block.ahead is None else block.ahead
    allowed = (position >= start[:, None] - back) & (position < start[:, None] + size + ahead)
    assert not np.any(reached & ~allowed), "an output depends on frames outside the declared field"
    if tight:
        assert np.array_equal((reached & allowed).any(axis=0), np.ones(time, bool))
        middle = time // size // 2 * size
        first, last = np.flatnonzero(reached[start == middle].any(axis=0))[[0, -1]]
        assert first == max(0, middle - back), "the declared past is not reached"
        assert last == min(time, middle + size + ahead) - 1, "the look-ahead is not reached"


def _check_steps(
    graph: Any, pull: Callable[..., Any], params: Any, x: Sequence, block: Any
) -> None:
    """Stepping through the sequence gives the outputs and gradients of the whole call."""
    y, grads = pull(params, x, ALL)
    spoilt = _spoilt(x)
    for steps_at_once in (1, 2):
        size = steps_at_once * block.block_size

        def stepped(params: Any, values: jax.Array, size: int = size) -> tuple[jax.Array, Any]:
            late = block.delay * block.stride
            values = jnp.pad(values, ((0, 0), (0, late), (0, 0)))
            mask = jnp.pad(spoilt.mask, ((0, 0), (0, late)))
            padded = Sequence(values, mask).pad_to_multiple(size)
            pieces = jax.tree.map(lambda leaf: _cut(leaf, size), padded)

            def advance(state: Any, piece: Sequence) -> tuple[Any, Sequence]:
                return nnx.merge(graph, params).step(state, piece)

            state = nnx.merge(graph, params).initial_state(x.mask.shape[0])
            _, outputs = jax.lax.scan(advance, state, pieces)
            joined = jax.tree.map(_join, outputs)
            end = block.delay + y.mask.shape[1]
            z = jax.tree.map(lambda leaf: leaf[:, block.delay : end], joined)
            return _probe(z, ALL), (z, joined.mask[:, : block.delay])

        if steps_at_once == 1:
            gradient = jax.value_and_grad(stepped, argnums=(0, 1), has_aux=True)
            (_, (z, early)), other = jax.jit(gradient)(params, spoilt.values)
            assert difference(other, grads) < TOLERANCE, "gradients through steps differ"
        else:
            _, (z, early) = jax.jit(stepped)(params, spoilt.values)
        assert not np.any(early), "a stream that lags begins with frames"
        assert np.array_equal(z.mask, y.mask), "stepping loses or adds frames"
        assert difference(_real(z), _real(y)) < TOLERANCE, "step differs"


def _check_whole_steps(x: Sequence, block: Any) -> None:
    """Frames that do not fill a step are refused."""
    short = jax.tree.map(lambda leaf: leaf[:, : block.block_size - 1], x)
    with pytest.raises(ValueError, match="do not fill steps"):
        block.step(block.initial_state(x.mask.shape[0]), short)


def _cut(leaf: jax.Array, size: int) -> jax.Array:
    """[batch, time, ...] to [steps, batch, size, ...]."""
    return jnp.moveaxis(leaf.reshape(leaf.shape[0], -1, size, *leaf.shape[2:]), 1, 0)


def _join(leaf: jax.Array) -> jax.Array:
    """[steps, batch, size, ...] to [batch, time, ...]."""
    leaf = jnp.moveaxis(leaf, 0, 1)
    return leaf.reshape(leaf.shape[0], -1, *leaf.shape[3:])
