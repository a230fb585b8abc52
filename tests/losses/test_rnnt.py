"""The transducer lattice and the RNN-T loss of logits against every walk listed one by one."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modessm_jax.losses.rnnt import lattice_nats, rnnt_cost
from modessm_jax.sequence import Sequence
from tests.losses.enumeration import padded, rnnt_nats, slopes

FRAMES, LABELS, CLASSES = 4, 3, 4


def walked(blank: np.ndarray, label: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """Nats of a lattice, and how likely a walk leaves each cell by its blank and by its label."""
    frames, positions = blank.shape
    total, by_blank, by_label = 0.0, np.zeros_like(blank), np.zeros_like(label)
    for steps in itertools.combinations(range(frames + positions - 2), positions - 1):
        by = np.isin(np.arange(frames + positions - 1), steps)  # the last step is a blank
        position = np.cumsum(by) - by
        time = np.cumsum(~by) - ~by
        cells = time, position
        probability = np.exp(np.where(by, label[cells], blank[cells]).sum())
        total += probability
        np.add.at(by_blank, (time[~by], position[~by]), probability)
        np.add.at(by_label, (time[by], position[by]), probability)
    return -np.log(total), by_blank / total, by_label / total


def test_the_gradient_of_a_lattice_is_minus_the_flow_of_all_walks():
    random = np.random.default_rng(0)
    lengths = [(4, 3), (2, 3), (4, 1), (1, 1)]  # frames, positions
    frames, counts = (jnp.asarray(x) for x in np.array(lengths).T - [[0], [1]])
    weights = 1.0 + jnp.arange(len(lengths))

    def weighed(blank, label):
        nats = lattice_nats(blank, label, frames, counts)
        return weights @ nats, nats

    with jax.enable_x64(True):
        steps = jnp.asarray(random.normal(size=(2, len(lengths), 4, 3)))
        (_, found), slope = jax.value_and_grad(weighed, (0, 1), has_aux=True)(*steps)
    for row, (time, positions) in enumerate(lengths):
        part = np.s_[row, :time, :positions]
        nats, *flows = walked(np.asarray(steps[0][part]), np.asarray(steps[1][part]))
        np.testing.assert_allclose(found[row], nats, rtol=1e-12)
        for of, expected in enumerate(flows):
            whole = np.zeros((4, 3))
            whole[:time, :positions] = expected
            np.testing.assert_allclose(slope[of][row], -weights[row] * whole, atol=1e-12)


def test_what_is_impossible_has_no_gradient():
    blank = jnp.full((1, 4, 3), -jnp.inf)

    def nats(blank, label):
        return lattice_nats(blank, label, jnp.asarray([4]), jnp.asarray([2]))[0]

    found, slope = jax.value_and_grad(nats, (0, 1))(blank, jnp.zeros_like(blank))
    assert found == jnp.inf
    assert not slope[0].any()
    assert not slope[1].any()


@jax.jit
def values_and_gradients(logits: Sequence, labels: Sequence):
    def summed(values):
        cost = rnnt_cost(logits.with_values(values), labels)
        return cost.nats.sum(), cost

    (_, cost), gradient = jax.value_and_grad(summed, has_aux=True)(logits.values)
    return cost, gradient


@pytest.fixture(scope="module")
def tiny():
    """Five hundred random lattices: empty targets, single frames, repeats, classes ruled out."""
    random = np.random.default_rng(0)
    logits = 2 * random.normal(size=(500, FRAMES, LABELS + 1, CLASSES))
    logits[random.random(logits.shape) < 0.05] = -np.inf
    logits[..., 0] = np.where(np.isfinite(logits).any(axis=-1), logits[..., 0], 0.0)
    lengths = random.integers(1, FRAMES + 1, 500)
    targets = [
        random.integers(1, CLASSES, random.integers(0, LABELS + 1)).tolist() for _ in lengths
    ]
    with jax.enable_x64(True):
        cost, gradient = values_and_gradients(
            Sequence.from_lengths(jnp.asarray(logits), jnp.asarray(lengths)),
            padded(targets, LABELS),
        )
        return logits, lengths, targets, np.asarray(cost.nats), np.asarray(gradient)


def test_the_cost_is_the_sum_over_every_walk(tiny):
    logits, lengths, targets, nats, _ = tiny
    expected = [
        rnnt_nats(row[:length], target)
        for row, length, target in zip(logits, lengths, targets, strict=True)
    ]
    assert 5 < np.isinf(expected).sum() < 100
    np.testing.assert_allclose(nats, expected, rtol=1e-9, atol=1e-9)


def test_the_gradient_is_the_slope_of_the_enumerated_cost(tiny):
    logits, lengths, targets, nats, gradient = tiny
    expected = np.zeros_like(logits)
    for row in np.flatnonzero(np.isfinite(nats)):
        part = np.s_[row, : lengths[row], : len(targets[row]) + 1]
        expected[part] = slopes(rnnt_nats, logits[part], targets[row])
    np.testing.assert_allclose(gradient, expected, atol=1e-6)


def test_cells_outside_an_example_have_a_gradient_of_exactly_zero(tiny):
    _, lengths, targets, _, gradient = tiny
    for row, (length, target) in enumerate(zip(lengths, targets, strict=True)):
        assert (gradient[row, length:] == 0).all()
        assert (gradient[row, :, len(target) + 1 :] == 0).all()


def random_batch(seed: int, frames: list[int], targets: list[list[int]]):
    shape = (len(frames), FRAMES, LABELS + 1, CLASSES)
    values = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    logits = Sequence.from_lengths(jnp.asarray(values), jnp.asarray(frames))
    return logits, padded(targets, LABELS)


@pytest.mark.parametrize("garbage", [np.nan, np.inf, 1e30])
def test_padding_changes_neither_values_nor_gradients(garbage):
    logits, labels = random_batch(1, [4, 2, 0], [[1, 1, 3], [2], []])
    inside = logits.mask[:, :, None] & (
        jnp.arange(LABELS + 1)[None, None, :] <= labels.lengths[:, None, None]
    )
    dirty = logits.with_values(jnp.where(inside[..., None], logits.values, garbage))
    dirty_labels = labels.with_values(jnp.where(labels.mask, labels.values, -7))
    clean = values_and_gradients(logits, labels)
    jax.tree.map(np.testing.assert_array_equal, clean, values_and_gradients(dirty, dirty_labels))
    assert clean[0].valid.tolist() == [True, True, False]
    assert clean[0].nats[2] == 0


def test_uniform_logits_cost_steps_times_ln_classes_less_the_walks():
    logits, labels = random_batch(0, [4, 4, 4], [[1, 2, 3]] * 3)
    cost, _ = values_and_gradients(logits.with_values(jnp.zeros_like(logits.values)), labels)
    walks = np.log(20)  # three labels in the six places before the last blank
    np.testing.assert_allclose(cost.nats, 7 * np.log(CLASSES) - walks, rtol=1e-6)


def test_float32_gradients_stay_close_to_float64_on_a_long_lattice():
    batch, frames, labels, classes = 2, 500, 100, 41
    random = np.random.default_rng(3)
    values = random.normal(size=(batch, frames, labels + 1, classes))
    targets = padded(random.integers(1, classes, (batch, labels)).tolist(), labels)
    mask = jnp.ones((batch, frames), bool)
    _, single = values_and_gradients(Sequence(jnp.asarray(values, jnp.float32), mask), targets)
    with jax.enable_x64(True):
        _, double = values_and_gradients(Sequence(jnp.asarray(values), mask), targets)
    assert np.abs(np.asarray(single) - np.asarray(double)).max() < 1.5e-4


def test_positions_that_do_not_fit_the_labels_are_refused():
    logits, labels = random_batch(0, [4], [[1]])
    with pytest.raises(ValueError, match="one more position than labels"):
        rnnt_cost(logits, Sequence(labels.values[:, :1], labels.mask[:, :1]))
