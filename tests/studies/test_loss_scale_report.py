"""The text has the right numbers; the picture is drawn with and without a run."""

import math

from studies.loss_scale.course import Course, Point, Stage
from studies.loss_scale.measure import Pair, Shape, Start, uniform_costs
from studies.loss_scale.report import SEED, draw, format_report
from tests.evaluation.test_report import size_of


def start(shape: Shape, ctc: float, ratio: float) -> Start:
    nats = {"none": 1.0, "labels": shape.labels, "frames": shape.frames}
    divisors = nats | {"seed_rule": shape.frames / 2}
    costs = {rule: Pair(ctc / by, ratio * ctc / by) for rule, by in divisors.items()}
    return Start(shape, costs, uniform_costs(shape), Pair(0.25, 0.125))


STARTS = [start(SEED, 160.0, 1.25), start(Shape(100, 10), 200.0, 3.5)]


def rules(ctc: float, rnnt: float) -> dict[str, Pair]:
    """Per frame, of trials of 20 frames and 5 labels."""
    return {
        rule: Pair(ctc * 20 / by, rnnt * 20 / by)
        for rule, by in {"none": 1, "labels": 5, "frames": 20, "seed_rule": 10}.items()
    }


COURSE = Course(
    name="a run, its data",
    points=[
        Point(0, "-", rules(3.0, 3.6), Pair(1.0, 0.5)),
        Point(40, "joint", rules(0.2, 0.1), Pair(0.4, 0.08)),
    ],
    shared=["lower", "upper"],
    curve=[(20, Pair(2.0, math.nan)), (40, Pair(0.5, 0.6))],
    stages=[Stage("ctc_warmup", 0), Stage("joint", 20)],
)


def test_the_text_is_computed_from_the_numbers():
    text = format_report(STARTS, None)
    assert "CTC 160.0 nats, RNN-T 200.0 nats an example, ratio 1.25" in text
    assert "measured so, they are 16.00 and 8.00 (ratio 0.50) here" in text
    assert "2 shapes: ratio 1.25 to 3.5, 1 of 2 within 0.3 to 3.0." in text
    assert "pair of its remedy: ratio 0.5 to 0.7, all within" in text
    assert "encoder features: ratio 0.5 to 0.5. The joint" in text
    assert "| 50 | 10 | 160.0 | 200.0 | 1.250 |" in text
    assert "Along a run" not in text


def test_the_text_of_a_run():
    text = format_report(STARTS, COURSE)
    assert "ctc_warmup from step 0, joint from step 20" in text
    assert "on validation trials: ratio 0.5 to 1.2, all within" in text
    assert "nats, ratio 0.5 to 1.2, all within 0.3 to 3.0; per label, ratio 0.5 to 1.2" in text
    assert "remedy: ratio 0.25 to 0.6, 1 of 2 within 0.3 to 3.0." in text
    assert "(in lower, upper): ratio 0.2 to 0.5." in text
    assert "first at step 40, CTC 0.500 and RNN-T 0.600; in all ratio 1.2 to 1.2" in text
    assert "| 40 | joint | 0.2000 | 0.1000 | 0.500 | 0.4000 | 0.0800 | 0.200 |" in text
    by_rule = "4.000 | 2.000 | 0.500 | 0.800 | 0.400 | 0.500 | 0.400 | 0.200 | 0.500 | 0.250 |"
    assert f"| 40 | {by_rule}" in text


def test_tables_are_tables():
    lines = [line for line in format_report(STARTS, COURSE).splitlines() if line.startswith("|")]
    heads = [place for place, line in enumerate(lines) if "---" in line]
    assert len(heads) == 4
    for place in heads:
        assert len({line.count("|") for line in lines[place - 1 : place + 3]}) == 1


def test_pictures(tmp_path):
    for course, width in ((None, 520), (COURSE, 1560)):
        draw(tmp_path / "drawn.png", STARTS, [0.1, 0.2], course)
        assert size_of(tmp_path / "drawn.png") == (width, 420)
