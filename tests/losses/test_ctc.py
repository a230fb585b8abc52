"""CTC against enumeration of every alignment, and what padding and infeasible trials do."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modessm_jax.losses.ctc import ctc_cost, feasible, label_smoothing_cost
from modessm_jax.sequence import Sequence

# One shape for nearly all tests, so that the loss is compiled once.
FRAMES, CLASSES, WIDTH = 5, 4, 3
TARGETS = [[], [1], [1, 2], [2, 2], [3, 3, 3], [1, 2, 1], [3], [1, 1]]
LENGTHS = [4, 5, 3, 3, 5, 5, 1, 4]


def enumerated(logits: np.ndarray, target: list[int]) -> float:
    """-ln of the summed probability of all paths that collapse to the target."""
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    mass = 0.0
    for path in itertools.product(range(logits.shape[-1]), repeat=len(logits)):
        collapsed = [k for k, _ in itertools.groupby(path) if k != 0]
        if collapsed == target:
            mass += math.exp(sum(log_p[t, k] for t, k in enumerate(path)))
    return -math.log(mass)


def padded(targets: list[list[int]], width: int = WIDTH) -> Sequence:
    values = np.zeros((len(targets), width), np.int32)
    for row, target in enumerate(targets):
        values[row, : len(target)] = target
    lengths = jnp.asarray([len(target) for target in targets], jnp.int32)
    return Sequence.from_lengths(jnp.asarray(values), lengths)


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


def test_ctc_is_the_sum_over_every_alignment():
    logits = random_logits(0, LENGTHS)
    cost, _ = values_and_gradients(logits, padded(TARGETS))
    expected = [
        enumerated(np.asarray(logits.values)[row, :length].astype(np.float64), target)
        for row, (target, length) in enumerate(zip(TARGETS, LENGTHS, strict=True))
    ]
    assert cost.valid.all()
    np.testing.assert_allclose(cost.nats, expected, rtol=2e-6)


def test_the_gradient_is_that_of_the_enumerated_cost():
    logits = random_logits(1, LENGTHS)
    _, gradient = values_and_gradients(logits, padded(TARGETS))
    target, length = TARGETS[-1], LENGTHS[-1]
    values = np.asarray(logits.values)[-1, :length].astype(np.float64)
    for index in itertools.product(range(length), range(CLASSES)):
        step = np.zeros_like(values)
        step[index] = 1e-5
        slope = (enumerated(values + step, target) - enumerated(values - step, target)) / 2e-5
        assert gradient[-1][index] == pytest.approx(slope, abs=2e-5)


def test_frames_needed_are_labels_and_repeats():
    targets = [[2, 2], [2, 2], [3, 3, 3], [3, 3, 3], [1, 2, 1], [], [], [2]]
    lengths = [3, 2, 5, 4, 3, 1, 0, 0]
    logits = random_logits(2, lengths)
    expected = [True, False, True, False, True, True, False, False]
    labels = padded(targets)
    assert feasible(logits, labels).tolist() == expected
    # Equal ids in the padding are not repeats.
    dirty = labels.with_values(jnp.where(labels.mask, labels.values, 2))
    assert feasible(logits, dirty).tolist() == expected


def test_an_invalid_example_costs_nothing_and_has_no_gradient():
    logits = random_logits(3, [2, 0, 4, 5, *LENGTHS[4:]])
    cost, gradient = values_and_gradients(
        logits, padded([[2, 2], [], [3, 3, 3], [1], *TARGETS[4:]])
    )
    assert cost.valid.tolist() == [False, False, False] + [True] * 5
    assert (cost.nats[:3] == 0).all()
    assert (gradient[:3] == 0).all()
    assert jnp.abs(gradient[3]).sum() > 0


@pytest.mark.parametrize("garbage", [np.nan, np.inf, 1e30])
def test_padding_changes_neither_values_nor_gradients(garbage):
    logits = random_logits(4, LENGTHS)
    labels = padded(TARGETS)
    dirty_logits = logits.with_values(jnp.where(logits.expanded_mask(), logits.values, garbage))
    dirty_labels = labels.with_values(jnp.where(labels.mask, labels.values, -7))
    clean = values_and_gradients(logits, labels)
    dirty = values_and_gradients(dirty_logits, dirty_labels)
    jax.tree.map(np.testing.assert_array_equal, clean, dirty)
    assert (clean[1][~np.asarray(logits.mask)] == 0).all()


def test_an_example_costs_the_same_alone():
    logits = random_logits(5, LENGTHS)
    together, _ = values_and_gradients(logits, padded(TARGETS))
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
    labels = padded(TARGETS)
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


def test_label_smoothing_is_the_divergence_from_uniform_over_real_frames():
    logits = random_logits(8, [5, 2, 0])
    dirty = logits.with_values(jnp.where(logits.expanded_mask(), logits.values, jnp.nan))
    cost = label_smoothing_cost(dirty)
    for row, length in enumerate([5, 2, 0]):
        x = np.asarray(logits.values)[row, :length].astype(np.float64)
        p = np.exp(x) / np.exp(x).sum(-1, keepdims=True)
        expected = (np.log((1 / CLASSES) / p) / CLASSES).sum()
        np.testing.assert_allclose(cost.nats[row], expected, rtol=1e-5, atol=1e-12)
    assert cost.valid.tolist() == [True, True, False]
    gradient = jax.grad(lambda v: label_smoothing_cost(dirty.with_values(v)).nats.sum())(
        dirty.values
    )
    assert jnp.isfinite(gradient).all()
    assert (gradient[~np.asarray(logits.mask)] == 0).all()
