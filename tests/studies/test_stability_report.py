"""The report of the stability study, of outcomes for every case."""

from studies.stability.cells import Cell, Outcome
from studies.stability.report import Pair, draw, format_report

LOSSES = [(i, 2.0 / i) for i in range(1, 41)]


def outcome(**changes) -> Outcome:
    healthy = dict(
        losses=LOSSES, diverged=None, per=0.02, best=0.02, skipped=0, rollbacks=0, worst=0.3
    )
    return Outcome(**{**healthy, **changes})


DIVERGED = outcome(diverged=25, per=0.9, best=0.1, worst=3.0)
STOPPED = outcome(diverged=40, per=None, best=None)
STUDY = {
    Cell(2e-3, 40, 1.0, False): Pair(DIVERGED, outcome(diverged=25, per=0.0215, rollbacks=1)),
    Cell(2e-3, 40, 0.5, False): Pair(DIVERGED, outcome(diverged=25, per=0.05, rollbacks=2)),
    Cell(2e-3, 100, 0.5, False): Pair(STOPPED, STOPPED._replace(rollbacks=3)),
    Cell(2e-3, 40, 1.0, True): Pair(outcome(), None),
    Cell(5e-4, 40, 1.0, True): Pair(outcome(per=0.04, worst=0.1), None),
}


def test_the_report_has_findings_factors_and_cells() -> None:
    text = format_report(STUDY, title="toys", command="python -m x --rates 1")
    assert "`guard.window=32`" in text and "`training.save_every=16`" in text
    assert "3 of 5 runs diverged." in text and "best of the others ended with 2.00 % PER" in text
    assert "rate-0.002-warmup-40-clip-1-bare, guarded: ended with 2.15 % PER, within" in text
    assert "rate-0.002-warmup-40-clip-0.5-bare, guarded: ended with 5.00 % PER, NOT within" in text
    assert "rate-0.002-warmup-100-clip-0.5-bare, guarded: stopped" in text
    assert "| final norm | with | 0 of 2 | 3.00 % |" in text
    assert "| final norm | without | 3 of 3 | none |" in text
    assert (
        "| 0.002 | 40 | 1 | without | step 25 | 3.00 | 0 | 90.00 % | 10.00 % | 1 | 2.15 % |" in text
    )
    assert "| 0.0005 | 40 | 1 | with | no | 0.10 | 0 | 4.00 % | 2.00 % |  |  |" in text


def test_the_picture_is_drawn_also_of_runs_without_a_step(tmp_path) -> None:
    empty = outcome(losses=[], diverged=0, per=None, best=None)
    draw(tmp_path / "study.png", {**STUDY, Cell(1e-2, 0, 1.0, True): Pair(empty, empty)})
    assert (tmp_path / "study.png").read_bytes().startswith(b"\x89PNG")
