"""Where the walks through a transducer lattice go, against every walk listed one by one."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np

from modessm_jax.losses.lattice import lattice_flows, lattice_nats

FRAMES, POSITIONS = 4, 3


def walked(blank: np.ndarray, label: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """Nats of a lattice, and how likely a walk leaves each cell by its blank and by its label."""
    frames, positions = blank.shape
    total, by_blank, by_label = 0.0, np.zeros_like(blank), np.zeros_like(label)
    for places in itertools.combinations(range(frames + positions - 2), positions - 1):
        by = np.isin(np.arange(frames + positions - 1), places)  # the last step is a blank
        position = np.cumsum(by) - by
        time = np.cumsum(~by) - ~by
        cells = time, position
        probability = np.exp(np.where(by, label[cells], blank[cells]).sum())
        total += probability
        np.add.at(by_blank, (time[~by], position[~by]), probability)
        np.add.at(by_label, (time[by], position[by]), probability)
    return -np.log(total), by_blank / total, by_label / total


def test_the_flows_are_those_of_all_walks_and_the_gradient_is_minus_them():
    random = np.random.default_rng(0)
    lengths = [(4, 3), (2, 3), (4, 1), (1, 1)]  # frames, positions
    frames, counts = (jnp.asarray(x) for x in np.array(lengths).T - [[0], [1]])
    weights = 1.0 + jnp.arange(len(lengths))

    def charged(blank, label):
        found = lattice_flows(blank, label, frames, counts)
        return weights @ found[0] + 10 * (found[1].sum() + found[2].sum()), found

    with jax.enable_x64(True):
        arcs = jnp.asarray(random.normal(size=(2, len(lengths), FRAMES, POSITIONS)))
        (_, found), slope = jax.value_and_grad(charged, (0, 1), has_aux=True)(*arcs)
        np.testing.assert_array_equal(found[0], lattice_nats(*arcs, frames, counts))
    for row, (time, positions) in enumerate(lengths):
        part = np.s_[row, :time, :positions]
        nats, *flows = walked(np.asarray(arcs[0][part]), np.asarray(arcs[1][part]))
        np.testing.assert_allclose(found[0][row], nats, rtol=1e-12)
        for of, expected in enumerate(flows):
            whole = np.zeros((FRAMES, POSITIONS))
            whole[:time, :positions] = expected
            np.testing.assert_allclose(found[1 + of][row], whole, atol=1e-12)
            np.testing.assert_allclose(slope[of][row], -weights[row] * whole, atol=1e-12)


def test_what_is_impossible_has_no_flow():
    blank = jnp.full((1, FRAMES, POSITIONS), -jnp.inf)
    found = lattice_flows(blank, jnp.zeros_like(blank), jnp.asarray([FRAMES]), jnp.asarray([2]))
    assert found[0][0] == jnp.inf
    assert not found[1].any()
    assert not found[2].any()
