"""The report of the leaderboard: paired intervals over trials and seeds, the table, the picture."""

from pathlib import Path

import numpy as np
import pytest

from modessm_jax.text import Edits, bootstrap_interval
from studies.leaderboard.measure import CTC, RNNT, Scored
from studies.leaderboard.plan import Entry, Plan
from studies.leaderboard.report import difference, draw, format_report, head_of

LENGTHS = (3, 10, 7, 12, 5, 20)
SINGLE = {
    "training": {"steps": 100, "select_by": "per"},
    "objective": {"weights": {}},
    "optimizer": {"peak_lr": 1.0, "end_lr": 1.0, "warmup_steps": 0},
}
STAGE = {"steps": 20, "weights": {}, "peak_lr": 1.0, "end_lr": 1.0, "warmup_steps": 0}
STAGED = {
    "training": {}, "objective": {}, "optimizer": {},
    "stages": {"order": ("a", "b"), "a": STAGE, "b": {**STAGE, "select_by": "mended_rnnt_per"}},
}  # fmt: skip
GRU, SSM = Entry("gru:small", (), SINGLE), Entry("modessm:small", (), STAGED)


def trials(errors, lengths=LENGTHS) -> list[Edits]:
    return [Edits(int(n), 0, 0, length) for n, length in zip(errors, lengths, strict=True)]


def drawn(seeds: int) -> list[list[Edits]]:
    random = np.random.default_rng(seeds)
    return [trials(random.integers(0, 4, len(LENGTHS))) for _ in range(seeds)]


def test_one_seed_is_the_paired_bootstrap_over_trials():
    (ours,), (theirs,) = drawn(1), [trials([1, 0, 2, 1, 0, 3])]
    _, *interval = difference([ours], [theirs])
    assert tuple(interval) == pytest.approx(bootstrap_interval(ours, seed=0, against=theirs))


def test_several_seeds_are_as_counted_one_by_one():
    ours, theirs = drawn(3), [trials([1, 0, 2, 1, 0, 3])] * 3
    rate, low, high = difference(ours, theirs)
    errors = np.array([[a.count for a in seed] for seed in ours]) - [1, 0, 2, 1, 0, 3]
    random = np.random.default_rng(7)
    rows, seeds = random.integers(0, 6, (20_000, 6)), random.integers(0, 3, (20_000, 3))
    counts = errors[seeds[:, :, None], rows[:, None, :]].sum(axis=(1, 2))
    rates = counts / (3 * np.array(LENGTHS)[rows].sum(axis=1))
    assert (low, high) == pytest.approx(tuple(np.quantile(rates, [0.025, 0.975])), abs=0.02)
    assert rate == pytest.approx(errors.sum() / (3 * sum(LENGTHS)))
    assert low < rate < high


def test_seeds_that_disagree_widen_the_interval_where_trials_do_not():
    """One seed has no errors, one has a tenth of every trial wrong: resamples have 0, 5 or 10 %."""
    lengths = (10, 20, 30)
    theirs = [trials([0, 0, 0], lengths)] * 2
    ours = [trials([0, 0, 0], lengths), trials([1, 2, 3], lengths)]
    assert difference(ours, theirs) == pytest.approx((0.05, 0.0, 0.1))


def test_other_trials_are_refused():
    for theirs in ([trials([1] * 6)] * 2, [trials([1] * 5, LENGTHS[1:])]):
        with pytest.raises(ValueError, match="the same trials and seeds"):
            difference([trials([0] * 6)], theirs)


@pytest.fixture
def board():
    curve = [(10, 0.5), (40, 0.2)]
    gru = [
        Scored({CTC: trials(errors)}, curve, 1234, 110, seconds, memory, latency)
        for errors, seconds, memory, latency in (
            ([0] * 5 + [3], 50.0, 2048, 0.001),
            ([0] * 5 + [6], 52.0, 3072, 0.003),
        )
    ]
    heads = {CTC: trials([3, 10, 7, 12, 5, 20]), RNNT: trials([0] * 6)}
    return {GRU: gru, SSM: [Scored(heads, curve, 999, 40, 49.0, 0, None)] * 2}


def plan(board, seconds: float | None = None) -> Plan:
    return Plan(Path("w"), tuple(board), (Path("digits"),), (0, 1), seconds, "cpu", test=False)


def test_the_table(board, tmp_path):
    given = {"command": "python -m studies.leaderboard", "out": tmp_path / "board"}
    text = format_report(plan(board, 50.0), {"digits": board}, "gru:small", **given)
    rows = {line.split(" | ")[0].strip("| "): line for line in text.splitlines() if "|" in line}
    assert rows["gru:small"] == (
        "| gru:small | 7.89 % | 5.26 %, 10.53 % |  | 1,234 | 110 (1.10) | 51 | 3 | 2.00 |"
    )
    assert "| 100.00 % | 100.00 %, 100.00 % | +92.11 (" in rows["modessm:small, CTC"]
    assert "| 0.00 % | 0.00 %, 0.00 % | -7.89 (" in rows["modessm:small, RNN-T"]
    assert rows["modessm:small, CTC"].endswith("| 999 | 40 (1.00) | 49 | - | - |")
    assert "take 50 CPU seconds" in text and "![Error rates on digits](board_digits.png)" in text
    # A reference with two heads is the one that its recipe chooses by.
    text = format_report(plan(board), {"digits": board}, "modessm:small", **given)
    row = next(line for line in text.splitlines() if line.startswith("| gru:small"))
    assert "| +7.89 (" in row and "| 110 | 51 |" in row
    assert (head_of(GRU), head_of(SSM)) == (CTC, RNNT)


def test_the_picture_is_drawn(board, tmp_path):
    draw(tmp_path / "board.png", board)
    assert (tmp_path / "board.png").stat().st_size > 5000
