"""Decoding scores against the loss, and the greedy search against a plain loop."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from modessm_jax.blocks.predictor import make_predictor
from modessm_jax.decoding.ctc import to_lists
from modessm_jax.decoding.transducer import (
    greedy,
    greedy_step,
    log_probabilities,
    make_transducer,
)
from modessm_jax.decoding.transducer_beam import beam
from modessm_jax.losses.transducer import Joint, transducer_cost
from modessm_jax.sequence import Sequence
from tests.decoding.transducers import CLASSES, Toy, random_frames, random_toy

D, FRAMES = 6, 6


def random_joint(seed: int, classes: int = CLASSES) -> Joint:
    random = np.random.default_rng(seed)
    kernel, bias = random.normal(size=(D, classes)), random.normal(size=classes)
    return Joint(jnp.asarray(kernel, jnp.float32), jnp.asarray(bias, jnp.float32))


@pytest.mark.parametrize("kind", ["stateless", "lstm"])
def test_scores_are_those_of_the_loss(kind):
    predictor = make_predictor(kind, D, rate=0.5, dtype=jnp.float32, rngs=nnx.Rngs(0))
    joint = random_joint(0)
    random = np.random.default_rng(1)
    values = jnp.asarray(random.normal(size=(3, 4, D)), jnp.float32)
    encoder = Sequence.from_lengths(values, jnp.asarray([4, 1, 3]))

    @jax.jit
    def search(encoder: Sequence):
        transducer = make_transducer(predictor.initial_state, predictor.step, joint)
        return beam(transducer, encoder, width=15, max_labels=3)

    @jax.jit
    def cost(encoder: Sequence, labels: Sequence):
        return transducer_cost(encoder, predictor(labels.values), joint, labels).nats

    found = search(encoder)
    for rank in range(15):  # all sequences of up to three of two labels
        labels = Sequence.from_lengths(found.ids[:, rank], found.lengths[:, rank])
        np.testing.assert_allclose(-cost(encoder, labels), found.scores[:, rank], rtol=2e-5)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_probabilities_sum_to_one_in_full_precision(dtype):
    random = np.random.default_rng(2)
    encoder, predictor = (jnp.asarray(random.normal(size=(2, 4, D)), dtype) for _ in range(2))
    found = log_probabilities(random_joint(3, 41), encoder, predictor)
    assert found.shape == (2, 4, 41) and found.dtype == jnp.float32
    np.testing.assert_allclose(jnp.exp(found).sum(axis=-1), 1, rtol=1e-5)


def loop(toy: Toy, frames: np.ndarray, most: int) -> list[int]:
    """The definition: the predictor sees labels alone, a frame emits at most `most` of them."""
    labels: tuple[int, ...] = ()
    for frame in frames:
        for _ in range(most):
            best = int(toy.log_p(frame, labels).argmax())
            if best == 0:
                break
            labels = (*labels, best)
    return list(labels)


@pytest.mark.parametrize("most", [1, 2, 4])
def test_greedy_equals_the_loop(most):
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


def test_greedy_in_blocks_gives_what_the_whole_gives():
    blocks = [1, 3, 2]
    with jax.enable_x64(True):
        toy = random_toy(2)
        transducer = toy.transducer()
        encoder, _ = random_frames(3, 20, FRAMES)
        step = jax.jit(lambda state, x: greedy_step(transducer, state, x))
        state = transducer.start(20)
        streamed: list[list[int]] = [[] for _ in range(20)]
        for end, size in zip(np.cumsum(blocks), blocks, strict=True):
            block = jax.tree.map(lambda x, a=end - size, b=end: x[:, a:b], encoder)
            state, found = step(state, block)
            assert ((np.asarray(found.scores) < 0) == (np.asarray(found.ids) > 0)).all()
            labels = [ids[ids > 0].tolist() for ids in np.asarray(found.ids)]
            streamed = [a + b for a, b in zip(streamed, labels, strict=True)]
        whole = to_lists(jax.jit(lambda x: greedy(transducer, x))(encoder))
    assert streamed == whole
    assert len({len(ids) for ids in whole}) > 3


def test_what_the_padding_holds_does_not_matter():
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
