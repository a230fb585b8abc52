"""Theory against enumerated alignments, and the losses against theory."""

import itertools
import math

import pytest

from studies.loss_scale.__main__ import fresh
from studies.loss_scale.measure import (
    Shape,
    Start,
    at_start,
    fresh_rnnt_cost,
    labels_at,
    uniform_costs,
)


def collapsed(path: tuple[int, ...]) -> list[int]:
    """The labels of a CTC path: runs are merged, blanks removed."""
    return [label for label, _ in itertools.groupby(path) if label != 0]


def rnnt_alignments(shape: Shape) -> int:
    """Paths through the lattice from its first cell, by blank or label, to after the last frame."""

    def ways(frame: int, emitted: int) -> int:
        if frame == shape.frames:
            return emitted == shape.labels
        by_label = ways(frame, emitted + 1) if emitted < shape.labels else 0
        return ways(frame + 1, emitted) + by_label

    return ways(0, 0)


@pytest.mark.parametrize("extra", [0, 1, 2, 4])
@pytest.mark.parametrize("labels", [[1], [2, 1], [1, 2, 1]])
def test_theory_against_enumeration(extra, labels):
    frames = len(labels) + extra
    shape, classes = Shape(frames, len(labels)), 3
    paths = itertools.product(range(classes), repeat=frames)
    of_ctc = sum(collapsed(path) == labels for path in paths)
    costs = uniform_costs(shape, classes)
    assert costs.ctc == pytest.approx(-math.log(of_ctc * classes**-frames))
    symbols = frames + len(labels)
    walks = rnnt_alignments(shape)
    assert costs.rnnt == pytest.approx(-math.log(walks * classes**-symbols))
    likelihood = walks * 0.5**frames * 0.25 ** len(labels)
    assert fresh_rnnt_cost(shape, classes) == pytest.approx(-math.log(likelihood))


@pytest.fixture(scope="module")
def start() -> Start:
    return at_start([fresh(0), fresh(1)], [Shape(12, 3)], examples=2)[0]


@pytest.mark.slow
def test_the_losses_agree_with_theory(start):
    assert start.uniform == pytest.approx(uniform_costs(start.shape), rel=1e-5)


@pytest.mark.slow
def test_every_rule_divides_both_costs_alike(start):
    for rule, divisor in (("labels", 3), ("frames", 12), ("seed_rule", 6)):
        assert start.costs[rule] == pytest.approx(
            [nats / divisor for nats in start.costs["none"]], rel=1e-4
        )
    assert start.ratio == start.costs["none"].rnnt / start.costs["none"].ctc


@pytest.mark.slow
def test_fresh_heads_cost_about_as_much_as_they_are_meant_to(start):
    assert start.costs["none"].rnnt == pytest.approx(fresh_rnnt_cost(start.shape), rel=0.05)
    # Logits of variance 1 are worth half a nat per frame, less what the best paths gain.
    uniform = uniform_costs(start.shape)
    assert uniform.ctc < start.costs["none"].ctc < uniform.ctc + start.shape.frames
    assert 0 < start.gradients.rnnt < start.gradients.ctc < 1


def test_shapes_that_cannot_be_aligned_are_refused():
    with pytest.raises(ValueError, match="5 labels in 4 frames"):
        at_start([fresh(0)], [Shape(4, 5)])


def test_a_share_is_at_least_one_label():
    assert [labels_at(0.05, frames) for frames in (5, 40)] == [1, 2]
