"""CTC against enumeration of every alignment, and what padding and infeasible trials do."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from modessm_jax.losses.ctc import ctc_cost, feasible
from modessm_jax.sequence import Sequence
from tests.losses.enumeration import ctc_nats, padded, slopes

# One shape for nearly all tests, so that the loss is compiled once.
FRAMES, CLASSES, WIDTH = 5, 4, 3
TARGETS = [[], [1], [1, 2], [2, 2], [3, 3, 3], [1, 2, 1], [3], [1, 1]]
LENGTHS = [4, 5, 3, 3, 5, 5, 1, 4]


def random_logits(seed: int, lengths: list[int]) -> Sequence:
    values = np.random.default_rng(seed).normal(size=(len(lengths), FRAMES, CLASSES)) * 2
    values = values.astype(np.float32)
    return Sequence.from_lengths(jnp.asarray(values), jnp.asarray(lengths, jnp.int32))


@jax.jit
def values_and_gradients(logits: Sequence, labels: Sequence):
    def summed(values):
        cost = ctc_cost(logits.with_values(values), labels)
        return cost.nats.sum(), cost

    (_, cost), gradient = jax.value_and_grad(summed, has_aux=True)(logits.values)
    return cost, gradient


@pytest.fixture(scope="module")
def tiny():
    """Five hundred random lattices: some empty targets, single frames, repeats, classes ruled out.

    Returns logits in float64, lengths, targets that fit them, and the cost and gradient found.
    """
    random = np.random.default_rng(0)
    logits = 2 * random.normal(size=(500, FRAMES, CLASSES))
    logits[random.random(logits.shape) < 0.05] = -np.inf
    logits[..., 0] = np.where(np.isfinite(logits).any(axis=-1), logits[..., 0], 0.0)
    lengths = random.integers(1, FRAMES + 1, 500)
    targets = []
    for length in lengths:
        target = random.integers(1, CLASSES, random.integers(0, WIDTH + 1)).tolist()
        while len(target) + sum(a == b for a, b in itertools.pairwise(target)) > length:
            target = target[1:]
        targets.append(target)
    with jax.enable_x64(True):
        cost, gradient = values_and_gradients(
            Sequence.from_lengths(jnp.asarray(logits), jnp.asarray(lengths)),
            padded(targets, WIDTH),
        )
        return logits, lengths, targets, np.asarray(cost.nats), np.asarray(gradient)


def test_ctc_is_the_sum_over_every_alignment(tiny):
    logits, lengths, targets, nats, _ = tiny
    expected = [
        ctc_nats(row[:length], target)
        for row, length, target in zip(logits, lengths, targets, strict=True)
    ]
    assert 5 < np.isinf(expected).sum() < 100  # some labels are ruled out altogether
    np.testing.assert_allclose(nats, expected, rtol=1e-9, atol=1e-9)


def test_the_gradient_is_the_slope_of_the_enumerated_cost(tiny):
    logits, lengths, targets, nats, gradient = tiny
    expected = np.zeros_like(logits)
    for row in np.flatnonzero(np.isfinite(nats)):
        length = lengths[row]
        expected[row, :length] = slopes(ctc_nats, logits[row, :length], targets[row])
    np.testing.assert_allclose(gradient, expected, atol=1e-6)


def test_ctc_agrees_with_optax():
    batch, frames, labels, classes = 8, 250, 60, 41
    random = np.random.default_rng(1)
    values = random.normal(size=(batch, frames, classes)).astype(np.float32)
    ids = random.integers(1, classes, (batch, labels)).astype(np.int32)
    logits = Sequence.from_lengths(jnp.asarray(values), jnp.asarray(250 - 10 * np.arange(8)))
    targets = Sequence.from_lengths(jnp.asarray(ids), jnp.asarray(60 - 5 * np.arange(8)))
    cost, gradient = values_and_gradients(logits, targets)

    @jax.jit
    def peer(values):
        return optax.ctc_loss(
            values,
            (~logits.mask).astype(jnp.float32),
            targets.values,
            (~targets.mask).astype(jnp.float32),
        )

    expected = peer(logits.values)
    slope = jax.jit(jax.grad(lambda values: peer(values).sum()))(logits.values)
    np.testing.assert_allclose(cost.nats, expected, rtol=1e-5)
    assert jnp.linalg.norm(gradient - slope) < 1e-4 * jnp.linalg.norm(slope)


def test_frames_needed_are_labels_and_repeats():
    targets = [[2, 2], [2, 2], [3, 3, 3], [3, 3, 3], [1, 2, 1], [], [], [2]]
    lengths = [3, 2, 5, 4, 3, 1, 0, 0]
    logits = random_logits(2, lengths)
    expected = [True, False, True, False, True, True, False, False]
    labels = padded(targets, WIDTH)
    assert feasible(logits, labels).tolist() == expected
    # Equal ids in the padding are not repeats.
    dirty = labels.with_values(jnp.where(labels.mask, labels.values, 2))
    assert feasible(logits, dirty).tolist() == expected


def test_an_invalid_example_costs_nothing_and_has_no_gradient():
    logits = random_logits(3, [2, 0, 4, 5, *LENGTHS[4:]])
    cost, gradient = values_and_gradients(
        logits, padded([[2, 2], [], [3, 3, 3], [1], *TARGETS[4:]], WIDTH)
    )
    assert cost.valid.tolist() == [False, False, False] + [True] * 5
    assert (cost.nats[:3] == 0).all()
    assert (gradient[:3] == 0).all()
    assert jnp.abs(gradient[3]).sum() > 0


@pytest.mark.parametrize("garbage", [np.nan, np.inf, 1e30])
def test_padding_changes_neither_values_nor_gradients(garbage):
    logits = random_logits(4, LENGTHS)
    labels = padded(TARGETS, WIDTH)
    dirty_logits = logits.with_values(jnp.where(logits.expanded_mask(), logits.values, garbage))
    dirty_labels = labels.with_values(jnp.where(labels.mask, labels.values, -7))
    clean = values_and_gradients(logits, labels)
    dirty = values_and_gradients(dirty_logits, dirty_labels)
    jax.tree.map(np.testing.assert_array_equal, clean, dirty)
    assert (clean[1][~np.asarray(logits.mask)] == 0).all()


def test_an_example_costs_the_same_alone():
    logits = random_logits(5, LENGTHS)
    together, _ = values_and_gradients(logits, padded(TARGETS, WIDTH))
    alone, _ = values_and_gradients(
        Sequence(logits.values[3:4, : LENGTHS[3]], logits.mask[3:4, : LENGTHS[3]]),
        padded([TARGETS[3]], len(TARGETS[3])),
    )
    np.testing.assert_allclose(together.nats[3], alone.nats[0], rtol=1e-6)


def test_uniform_logits_cost_frames_times_ln_classes_less_the_paths():
    frames, labels, classes = 30, 8, 41
    logits = Sequence.from_lengths(jnp.zeros((1, frames, classes)), jnp.asarray([frames]))
    cost, _ = values_and_gradients(logits, padded([list(range(1, labels + 1))], labels))
    # Alignments of U distinct labels to T frames: choose(T + U, 2U).
    paths = math.log(math.comb(frames + labels, 2 * labels))
    np.testing.assert_allclose(cost.nats[0], frames * math.log(classes) - paths, rtol=1e-6)


def test_half_precision_logits_are_summed_in_float32():
    logits = random_logits(6, LENGTHS)
    half = logits.with_values(logits.values.astype(jnp.bfloat16))
    labels = padded(TARGETS, WIDTH)
    expected, _ = values_and_gradients(half.with_values(half.values.astype(jnp.float32)), labels)
    cost, gradient = values_and_gradients(half, labels)
    assert gradient.dtype == jnp.bfloat16
    assert cost.nats.dtype == jnp.float32
    np.testing.assert_array_equal(cost.nats, expected.nats)


def test_a_batch_without_labels_costs_the_blank_path():
    logits = random_logits(7, [5, 2])
    cost, _ = values_and_gradients(logits, padded([[], []], 0))
    log_p = np.asarray(jax.nn.log_softmax(logits.values, axis=-1))[:, :, 0]
    np.testing.assert_allclose(cost.nats, [-log_p[0].sum(), -log_p[1, :2].sum()], rtol=1e-6)
