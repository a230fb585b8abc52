"""The one reduction: each rule against its definition, and independence of devices and fillers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from modessm_jax.losses.cost import RULES, Cost, total

NATS = jnp.asarray([30.0, 8.0, 0.0, 12.0])
VALID = jnp.asarray([True, True, False, True])
FRAMES = jnp.asarray([10, 4, 3, 6], jnp.int32)
LABELS = jnp.asarray([5, 1, 9, 0], jnp.int32)
EXPECTED = {
    "frames": (3.0 + 2.0 + 2.0) / 3,
    "labels": (6.0 + 8.0 + 12.0) / 3,
    "none": 50.0 / 3,
    "seed_rule": (50.0 / 3) / ((20.0 / 3) / 2),
}


@pytest.mark.parametrize("rule", EXPECTED)
def test_each_rule_against_its_definition(rule):
    costs = {"phoneme": Cost(NATS, VALID), "interctc": Cost(2 * NATS, VALID)}
    loss, metrics = total(costs, {"phoneme": 0.7, "interctc": 0.3}, FRAMES, LABELS, rule)
    assert metrics["loss/phoneme"] == pytest.approx(EXPECTED[rule])
    assert metrics["loss/interctc"] == pytest.approx(2 * EXPECTED[rule])
    assert loss == pytest.approx((0.7 + 0.6) * EXPECTED[rule])
    assert metrics["valid/phoneme"] == 3


def test_the_seed_rule_never_multiplies():
    short = jnp.ones((4,), jnp.int32)
    loss, _ = total({"phoneme": Cost(NATS, VALID)}, {"phoneme": 1.0}, short, LABELS, "seed_rule")
    assert loss == pytest.approx(EXPECTED["none"])


@pytest.mark.parametrize("rule", EXPECTED)
def test_nothing_valid_costs_nothing_and_has_no_gradient(rule):
    def loss(nats):
        cost = Cost(nats, jnp.zeros((4,), bool))
        return total({"phoneme": cost}, {"phoneme": 1.0}, FRAMES, LABELS, rule)[0]

    value, gradient = jax.value_and_grad(loss)(NATS)
    assert value == 0
    assert (gradient == 0).all()


@pytest.mark.parametrize("rule", EXPECTED)
def test_one_device_and_four_agree(rule):
    # Two rows a device and unequal numbers of valid rows: a mean of means would be wrong.
    nats, valid = jnp.tile(NATS, 2), jnp.tile(VALID, 2).at[0].set(False)
    frames, labels = jnp.tile(FRAMES, 2), jnp.tile(LABELS, 2)

    @jax.jit
    def loss(nats, valid, frames, labels):
        return total({"phoneme": Cost(nats, valid)}, {"phoneme": 1.0}, frames, labels, rule)[0]

    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))
    sharding = NamedSharding(mesh, PartitionSpec("data"))
    args = (nats, valid, frames, labels)
    spread = loss(*(jax.device_put(x, sharding) for x in args))
    np.testing.assert_allclose(spread, loss(*args), rtol=1e-6)


@pytest.mark.parametrize("rule", RULES)
def test_a_cost_of_trials_has_the_same_weight_whatever_their_lengths(rule):
    costs = {"mode": Cost(jnp.asarray([0.2, 0.4, 9.0]), jnp.asarray([True, True, False]))}
    for frames in ([10, 20, 30], [400, 900, 2]):
        lengths = jnp.asarray(frames)
        loss, metrics = total(costs, {"mode": 2.0}, lengths, lengths, rule, of_trials=("mode",))
        assert float(loss) == pytest.approx(0.6)
        assert float(metrics["loss/mode"]) == pytest.approx(0.3)


def test_unknown_rules_and_names_are_refused():
    cost = {"phoneme": Cost(NATS, VALID)}
    with pytest.raises(ValueError, match="per_frame"):
        total(cost, {"phoneme": 1.0}, FRAMES, LABELS, "per_frame")
    with pytest.raises(ValueError, match="interctc"):
        total(cost, {"phoneme": 1.0, "interctc": 0.3}, FRAMES, LABELS, "frames")
    with pytest.raises(ValueError, match="phoneme"):
        total(cost, {}, FRAMES, LABELS, "frames")
