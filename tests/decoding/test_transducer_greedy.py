"""Greedy transducer decoding against a plain loop."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modessm_jax.decoding.ctc import to_lists
from modessm_jax.decoding.transducer_greedy import greedy, greedy_step, initial_greedy
from modessm_jax.sequence import Sequence
from tests.decoding.transducers import Toy, random_frames, random_toy

FRAMES = 6


def loop(toy: Toy, frames: np.ndarray, most: int) -> list[int]:
    """The definition: the predictor sees labels alone, a frame gives at most `most` of them."""
    said: tuple[int, ...] = ()
    for frame in frames:
        for _ in range(most):
            best = int(toy.log_p(frame, said).argmax())
            if best == 0:
                break
            said = (*said, best)
    return list(said)


@pytest.mark.parametrize("most", [1, 2, 4])
def test_equals_the_loop(most):
    with jax.enable_x64(True):
        toy = random_toy(0, blank=-0.5)
        encoder, frames = random_frames(1, 200, FRAMES)
        found = jax.jit(lambda x: greedy(toy.transducer(), x, max_symbols=most))(encoder)
    expected = [loop(toy, of_example, most) for of_example in frames]
    assert to_lists(found) == expected
    assert found.values.shape == (200, FRAMES * most) and found.values.dtype == jnp.int32
    assert (np.asarray(found.values)[~np.asarray(found.mask)] == 0).all()
    unbounded = [loop(toy, of_example, 50) for of_example in frames]
    assert 10 < sum(a != b for a, b in zip(expected, unbounded, strict=True)) < 190
    assert any(not len(of_example) for of_example in frames)


def test_frames_in_blocks_give_what_the_whole_gives():
    blocks = [1, 3, 2]
    with jax.enable_x64(True):
        toy = random_toy(2)
        transducer = toy.transducer()
        encoder, _ = random_frames(3, 20, FRAMES)
        step = jax.jit(lambda state, x: greedy_step(transducer, state, x))
        state = initial_greedy(transducer, 20)
        streamed: list[list[int]] = [[] for _ in range(20)]
        for end, size in zip(np.cumsum(blocks), blocks, strict=True):
            block = jax.tree.map(lambda x, a=end - size, b=end: x[:, a:b], encoder)
            state, ids = step(state, block)
            streamed = [a + b for a, b in zip(streamed, to_lists(ids), strict=True)]
        whole = to_lists(jax.jit(lambda x: greedy(transducer, x))(encoder))
    assert streamed == whole
    assert len({len(ids) for ids in whole}) > 3


def test_what_stands_in_the_padding_does_not_matter():
    with jax.enable_x64(True):
        transducer = random_toy(4).transducer()
        clean, loud = (random_frames(5, 20, FRAMES, fill)[0] for fill in (0.0, 1e3))
        search = jax.jit(lambda x: greedy(transducer, x))
        assert to_lists(search(clean)) == to_lists(search(loud))


def test_no_labels_in_a_frame_are_refused():
    transducer = random_toy(0).transducer()
    empty = Sequence(jnp.zeros((1, 2, 5)), jnp.ones((1, 2), bool))
    with pytest.raises(ValueError, match="max_symbols = 0"):
        greedy(transducer, empty, max_symbols=0)
