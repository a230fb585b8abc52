"""Marginal likelihood against plain enumeration in float64; the guard against its definition."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modessm_jax.losses.cost import Cost
from modessm_jax.losses.mode import information_cost, marginal_cost

TRIALS, MODES = 8, 3
BLOCK = np.array([7, 7, 2, 7, -1, 2, 30, 30])
VALID = np.array([True, True, True, False, True, True, True, True])


def random_case(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Nats of each trial and mode, and normalised log-probabilities of the modes."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(TRIALS, MODES))
    nats = rng.uniform(0, 4, size=(TRIALS, MODES))
    return nats, logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


def enumerated(
    nats: np.ndarray, log_modes: np.ndarray, block: np.ndarray, valid: np.ndarray
) -> np.ndarray:
    """In probabilities, not logarithms, one block after the other."""
    result = np.zeros(len(nats))
    for name in np.unique(block):
        rows = np.flatnonzero((block == name) & valid)
        prior = np.exp(log_modes[rows]).prod(axis=0)
        likelihood = np.exp(-nats[rows]).prod(axis=0)
        joint = prior / prior.sum() * likelihood
        with np.errstate(divide="ignore", invalid="ignore"):
            total, possible = -np.log(joint.sum()), joint > 0
            own = nats[rows][:, possible] @ (joint[possible] / joint.sum())
            result[rows] = own + (total - own.sum()) / max(len(rows), 1)
    return result


@jax.jit
def values_and_gradients(nats, log_modes, block, valid):
    def summed(nats, log_modes):
        # Modes agree on what is valid: it depends on frames and labels alone.
        both = jnp.broadcast_to(valid[:, None], nats.shape)
        cost = marginal_cost(Cost(nats, both), log_modes, block)
        return cost.nats.sum(), cost

    gradient = jax.value_and_grad(summed, argnums=(0, 1), has_aux=True)
    (_, cost), gradients = gradient(nats, log_modes)
    return cost, gradients


def run(nats, log_modes, block=BLOCK, valid=VALID):
    """Costs, validity and both gradients in float64."""
    with jax.enable_x64(True):
        cost, gradients = values_and_gradients(
            *(jnp.asarray(part) for part in (nats, log_modes, block, valid))
        )
        return np.asarray(cost.nats), np.asarray(cost.valid), [np.asarray(g) for g in gradients]


ALONE = np.arange(TRIALS)


@pytest.mark.parametrize("block", [BLOCK, ALONE, np.zeros(TRIALS, int)])
def test_it_is_the_sum_over_modes(block):
    for seed in range(5):
        nats, log_modes = random_case(seed)
        found, valid, _ = run(nats, log_modes, block)
        np.testing.assert_allclose(found, enumerated(nats, log_modes, block, VALID), rtol=1e-12)
        np.testing.assert_array_equal(valid, VALID)


def test_without_blocks_every_trial_has_a_mode_of_its_own():
    nats, log_modes = (jnp.asarray(part, jnp.float32) for part in random_case())
    cost = marginal_cost(Cost(nats, jnp.ones(nats.shape, bool)), log_modes)
    np.testing.assert_allclose(
        cost.nats, -np.log(np.exp(log_modes - nats).sum(axis=1)), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("block", [BLOCK, ALONE])
def test_the_gradient_is_the_slope(block):
    nats, log_modes = random_case()
    _, _, gradients = run(nats, log_modes, block)
    for which, found in enumerate(gradients):
        slopes = np.zeros_like(found)
        for index in np.ndindex(*found.shape):
            sides = []
            for step in (1e-5, -1e-5):
                moved = [nats.copy(), log_modes.copy()]
                moved[which][index] += step
                sides.append(enumerated(moved[0], moved[1], block, VALID).sum())
            slopes[index] = (sides[0] - sides[1]) / 2e-5
        np.testing.assert_allclose(found, slopes, atol=1e-8)
        assert np.abs(found[VALID]).max() > 0.1


def test_trials_of_a_block_bear_their_own_labels():
    """Long and short ones: where modes cost the same, sharing a mode changes nobody's cost."""
    nats = np.repeat(np.arange(1.0, 1 + TRIALS)[:, None], MODES, axis=1)
    found, _, _ = run(nats, random_case()[1])
    np.testing.assert_allclose(found[VALID], nats[VALID, 0], rtol=1e-12)


def test_an_invalid_trial_costs_nothing_and_says_nothing_of_its_block():
    nats, log_modes = random_case()
    clean = run(nats, log_modes)
    nats[~VALID], log_modes[~VALID] = np.nan, np.nan
    dirty = run(nats, log_modes)
    jax.tree.map(np.testing.assert_array_equal, clean, dirty)
    assert (dirty[0][~VALID] == 0).all()
    assert all((gradient[~VALID] == 0).all() for gradient in dirty[2])


def test_a_trial_must_be_valid_in_every_mode():
    nats, log_modes = (jnp.asarray(part, jnp.float32) for part in random_case())
    valid = jnp.ones(nats.shape, bool).at[2, 1].set(False)
    cost = marginal_cost(Cost(nats, valid), log_modes)
    np.testing.assert_array_equal(cost.valid, np.arange(TRIALS) != 2)
    assert cost.nats[2] == 0


def test_impossible_modes_take_no_part():
    """Labels a mode cannot emit, modes a head rules out, and both for the same trial."""
    nats, log_modes = random_case()
    nats[0, 1] = nats[2, 0] = np.inf
    log_modes[1, 1] = log_modes[4, 2] = -np.inf
    nats[4, 2] = np.inf
    found, _, gradients = run(nats, log_modes)
    np.testing.assert_allclose(found, enumerated(nats, log_modes, BLOCK, VALID), rtol=1e-12)
    assert all(np.isfinite(gradient).all() for gradient in gradients)
    assert (gradients[0][[0, 1], 1] == 0).all()  # one block: trial 0 rules out mode 1 for both
    assert np.abs(gradients[0][0, [0, 2]]).min() > 1e-3


def test_a_block_no_mode_explains_costs_inf_and_has_no_gradient():
    nats, log_modes = random_case()
    nats[0, :2] = nats[1, 2] = np.inf  # each trial has a mode; the two together have none
    found, valid, gradients = run(nats, log_modes)
    of_block = (BLOCK == 7) & VALID
    assert np.isposinf(found[of_block]).all() and np.isfinite(found[~of_block]).all()
    np.testing.assert_array_equal(valid, VALID)
    for gradient in gradients:
        assert (gradient[of_block] == 0).all()
        assert np.isfinite(gradient).all() and np.abs(gradient[~of_block]).max() > 0.1


@pytest.mark.slow
def test_a_trial_drawn_twice_is_one_witness_of_its_block():
    nats, log_modes = (jnp.asarray(part[:3], jnp.float32) for part in random_case())
    twice = jnp.asarray([0, 1, 2, 0])
    blocks = jnp.asarray([0, 0, 0, 0])
    valid = jnp.ones((4, MODES), bool)

    def own(rows, **of):
        """The mode's prior and posterior show in the costs of trials of known nats."""
        cost = Cost(nats[rows], valid[: len(rows)])
        return marginal_cost(cost, log_modes[rows], blocks[: len(rows)], **of).nats

    once, again = own(twice[:3]), own(twice, trial=twice)
    shares = once - again[:3]  # the same but for a third and a fourth of one divergence
    np.testing.assert_allclose(shares, shares[0], rtol=1e-4)
    assert shares[0] > 0
    assert np.ptp(once - own(twice)[:3]) > 1e-2  # where it counts as two

    def information(rows, **of):
        real = jnp.ones(len(rows), bool)
        return information_cost(log_modes[rows], real, blocks[: len(rows)], **of).nats

    np.testing.assert_allclose(
        information(twice, trial=twice)[:3], information(twice[:3]), rtol=1e-5
    )


def test_nan_is_not_hidden():
    nats, log_modes = random_case()
    nats[4, 0] = np.nan
    found, _, _ = run(nats, log_modes)
    assert np.isnan(found[4]) and np.isfinite(np.delete(found, 4)).all()


def test_long_blocks_stay_finite_in_float32():
    """Sixty trials of five hundred nats, ten apart between the modes."""
    nats = jnp.broadcast_to(jnp.asarray([[500.0, 510.0]]), (60, 2))
    log_modes = jnp.full((60, 2), -np.log(2), jnp.float32)
    cost = marginal_cost(Cost(nats, jnp.ones((60, 2), bool)), log_modes, jnp.zeros(60, int))
    np.testing.assert_allclose(cost.nats.sum(), 60 * 500 + np.log(2), rtol=1e-6)


def informative(logits: np.ndarray, real: np.ndarray, block: np.ndarray | None = None):
    with jax.enable_x64(True):
        logs = jax.nn.log_softmax(jnp.asarray(logits), axis=1)
        ids = None if block is None else jnp.asarray(block)
        return information_cost(logs, jnp.asarray(real), ids)


def test_the_mean_is_what_the_information_lacks():
    logits = 2 * np.random.default_rng(0).normal(size=(TRIALS, MODES))
    cost = informative(logits, VALID)
    p = np.exp(logits[VALID]) / np.exp(logits[VALID]).sum(axis=1, keepdims=True)
    joint = p / len(p)
    information = (joint * np.log(joint / joint.sum(0) / joint.sum(1, keepdims=True))).sum()
    nats = np.asarray(cost.nats)
    np.testing.assert_allclose(nats[VALID].mean(), np.log(MODES) - information, rtol=1e-10)
    np.testing.assert_array_equal(cost.valid, VALID)
    assert (nats[VALID] > 0).all() and (nats[~VALID] == 0).all()


def test_a_block_tells_what_the_geometric_mean_of_its_trials_does():
    logits = 2 * np.random.default_rng(0).normal(size=(TRIALS, MODES))
    shared = logits.copy()
    for name in np.unique(BLOCK):
        rows = np.flatnonzero((name == BLOCK) & VALID)
        p = np.exp(logits[rows])
        p /= p.sum(axis=1, keepdims=True)
        mean = p.prod(axis=0) ** (1 / len(rows))
        shared[rows] = np.log(mean / mean.sum())
    found, expected = informative(logits, VALID, BLOCK), informative(shared, VALID)
    np.testing.assert_allclose(found.nats, expected.nats, rtol=1e-10)
    alone = informative(logits, VALID, np.arange(TRIALS))
    np.testing.assert_allclose(alone.nats, informative(logits, VALID).nats, rtol=1e-10)


def test_confidence_and_balance_cost_nothing_and_either_alone_everything():
    sure = 200.0 * np.eye(MODES)[np.arange(6) % MODES]
    real = np.ones(6, bool)
    np.testing.assert_allclose(informative(sure, real).nats, 0, atol=1e-12)
    collapsed = np.repeat(sure[:1], 6, axis=0)
    np.testing.assert_allclose(informative(collapsed, real).nats, np.log(MODES), rtol=1e-12)
    undecided = np.zeros((6, MODES))
    np.testing.assert_allclose(informative(undecided, real).nats, np.log(MODES), rtol=1e-12)


def test_descent_leads_to_confidence_and_balance():
    logits = 0.1 * np.random.default_rng(1).normal(size=(12, MODES))
    real = jnp.ones(12, bool)
    gradient = jax.jit(
        jax.grad(
            lambda logits: information_cost(jax.nn.log_softmax(logits, axis=1), real).nats.sum()
        )
    )
    for _ in range(300):
        logits = logits - np.asarray(gradient(jnp.asarray(logits, jnp.float32)))
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert p.max(axis=1).min() > 0.9
    counts = np.bincount(p.argmax(axis=1), minlength=MODES)
    assert (
        np.abs(counts - 4).max() <= 1
    )  # once all are sure, none moves for the last bit of balance


@pytest.mark.parametrize("spoilt", [np.nan, -np.inf])
def test_what_is_not_real_and_what_is_ruled_out_leave_gradients_finite(spoilt):
    log_modes = jnp.log(jnp.asarray([[1.0, 0.0], [1.0, 0.0], [spoilt, spoilt]]))
    real = jnp.asarray([True, True, False])
    for which in (real, jnp.zeros(3, bool)):

        def summed(log_modes, which=which):
            return information_cost(log_modes, which).nats.sum()

        def in_blocks(log_modes, which=which):
            return information_cost(log_modes, which, jnp.asarray([4, 4, 4])).nats.sum()

        np.testing.assert_allclose(in_blocks(log_modes), np.log(2) * which.sum(), rtol=1e-6)
        assert np.isfinite(jax.grad(in_blocks)(log_modes)).all()
        value, gradient = jax.value_and_grad(summed)(log_modes)
        np.testing.assert_allclose(value, np.log(2) * which.sum(), rtol=1e-6)
        assert np.isfinite(gradient).all() and (gradient[2] == 0).all()


def test_both_marginalise_the_same_modes_under_any_order():
    """Relabelling the modes changes nothing."""
    nats, log_modes = random_case()
    want = run(nats, log_modes)[0]
    for order in itertools.permutations(range(MODES)):
        order = list(order)
        np.testing.assert_allclose(run(nats[:, order], log_modes[:, order])[0], want, rtol=1e-12)
        np.testing.assert_allclose(
            informative(log_modes[:, order], VALID).nats,
            informative(log_modes, VALID).nats,
            rtol=1e-12,
        )


def test_the_sums_of_blocks_are_asked_for_in_full_precision():
    """A GPU rounds numbers to TF32 before it multiplies, unless set otherwise; a CPU never does."""
    real, block = jnp.asarray(VALID), jnp.asarray(BLOCK)
    program = jax.make_jaxpr(lambda logs: information_cost(logs, real, block).nats)
    asked = str(program(jnp.zeros((TRIALS, MODES))))
    assert asked.count("dot_general[") == asked.count("precision=(Precision.HIGHEST") == 1
