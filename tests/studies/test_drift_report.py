"""The report of the drift study: rates, the gap regained, the worst session, and forgetting."""

from typing import Any

import pytest

from modessm_jax.text import Edits
from studies.drift.measure import FROZEN, TRAINED, Scored
from studies.drift.report import draw, format_report

LATER = ("day.2024.02.01", "day.2024.02.11")
KNOWN = ("day.2024.01.01", "day.2024.01.22")


def scored(*errors: int, earlier: int | None = None, **cost: Any) -> Scored:
    """Two trials of ten phonemes in each later session, with so many errors each."""
    later = {name: [Edits(n, 0, 0, 10)] * 2 for name, n in zip(LATER, errors, strict=True)}
    old = [] if earlier is None else [Edits(earlier, 0, 0, 10)] * 3
    return Scored(later, old, cost.get("seconds", {}), cost.get("taken_back", {}))


@pytest.fixture
def study():
    costs: Any = {"seconds": {LATER[0]: 30.0, LATER[1]: 50.0}}
    unlabelled = scored(2, 4, taken_back={LATER[0]: (1, 8), LATER[1]: (0, 8)}, **costs)
    found = {
        FROZEN: scored(3, 5, earlier=1),
        TRAINED: scored(1, 1, earlier=1),
        "20 labelled trials": scored(1, 2, **costs),
        "20 labelled trials and replay": scored(2, 2, earlier=2, **costs),
        "masked_copies": unlabelled,
    }
    return {0: found, 1: found | {"masked_copies": scored(4, 4, taken_back={}, **costs)}}


def test_the_tables_say_what_was_regained_and_what_was_lost(study):
    text = format_report(study, KNOWN, title="recordings", command="python -m studies.drift")
    lines = {row.split(" | ")[0].strip("| "): row for row in text.splitlines() if "|" in row}
    header = next(row for row in text.splitlines() if "day.2024.02.01" in row)
    assert "day.2024.02.01, 10 days on" in header and "day.2024.02.11, 20 days on" in header
    rates, gaps = text.split("What each way regains")
    assert "| masked_copies | 30.00 % (20.00 %, 40.00 %) | 40.00 % (40.00 %, 40.00 %) |" in rates
    # Frozen: 16 errors of 40 a seed; trained on all: 4; so 12 make the gap. 20 trials: 6 errors.
    row = next(line for line in gaps.splitlines() if line.startswith("| 20 labelled trials |"))
    assert "| 15.00 % |" in row and "| 83% (" in row and "| -20.00 |" in row
    assert "| unchanged | 40 (50) |" in row
    row = next(line for line in gaps.splitlines() if "and replay" in line)
    assert "| 20.00 % (before 10.00 %) |" in row
    row = next(line for line in gaps.splitlines() if line.startswith("| masked_copies |"))
    # Worse than frozen in one session of one seed: 4 errors instead of 3, of 10.
    assert "| +10.00 |" in row and "| 1 of 16 |" in row
    assert FROZEN in lines and TRAINED in lines


def test_the_picture_is_drawn(study, tmp_path):
    draw(tmp_path / "drift.png", study, KNOWN)
    assert (tmp_path / "drift.png").stat().st_size > 5000
