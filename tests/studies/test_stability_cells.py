"""The cells of the stability study, and the outcomes of runs written by hand."""

import json
from pathlib import Path

from configs import common
from studies.stability.cells import Cell, full_grid, one_at_a_time, read_outcome

CELL = Cell(rate=2e-3, warmup=40, clip=0.5, norm=False)


def write_run(workdir: Path, losses, pers=(0.5, 0.2), *, ended=True, further=(), back=()) -> Path:
    """A run with an evaluation half way and, if it ended, at the end."""
    workdir.mkdir()
    guard = {**common.guard(), "window": 16}
    (workdir / "config.json").write_text(json.dumps({"guard": guard}))
    rows: list[dict] = [
        {"step": i, "kind": "train", "skipped": 0.0, "loss": loss, "gradient_norm": 1.0}
        for i, loss in enumerate(losses, 1)
    ]
    rows.insert(len(rows) // 2, {"step": len(rows) // 2, "kind": "evaluation", "per": pers[0]})
    if ended:
        rows.append({"step": len(losses), "kind": "evaluation", "per": pers[1]})
        (workdir / "results.json").write_text(json.dumps({"rollbacks": list(back)}))
    rows.extend(further)
    (workdir / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return workdir


def test_all_combinations_highest_rates_first() -> None:
    grid = full_grid([5e-4, 2e-3], [40, 100], [1.0], [True, False])
    assert len(set(grid)) == len({cell.name for cell in grid}) == 8
    assert [cell.rate for cell in grid] == [2e-3] * 4 + [5e-4] * 4


def test_one_change_at_a_time() -> None:
    found = one_at_a_time([2e-3, 5e-4], [40, 100], [1.0, 0.5], [False, True])
    before = Cell(2e-3, 40, 1.0, False)
    assert found[0] == before and found[-1] == Cell(5e-4, 100, 0.5, True)
    changed = [sum(a != b for a, b in zip(before, cell, strict=True)) for cell in found]
    assert changed == [0, 1, 1, 1, 1, 4]
    assert one_at_a_time([1e-3], [40], [1.0], [True]) == [Cell(1e-3, 40, 1.0, True)]


def test_the_overrides_of_a_cell() -> None:
    given = CELL.overrides(steps=200, guarded=True)
    for expected in (
        "--config.optimizer.peak_lr=0.002",
        "--config.optimizer.warmup_steps=40",
        "--config.optimizer.clip_norm=0.5",
        "--config.model.fusion_norm=False",
        "--config.guard.divergence=True",
        "--config.training.steps=200",
        "--config.training.log_every=1",
    ):
        assert expected in given
    assert "--config.guard.divergence=False" in CELL.overrides(steps=200, guarded=False)


def test_a_healthy_run(tmp_path) -> None:
    found = read_outcome(
        write_run(tmp_path / "run", [2.0 - i / 50 for i in range(60)]), guarded=False
    )
    assert found.diverged is None and found.per == 0.2 and found.best == 0.2
    assert found.losses[0] == (1, 2.0) and len(found.losses) == 60 and 0 <= found.worst < 1


def test_a_run_that_rose_and_one_that_stopped(tmp_path) -> None:
    rose = [1.0] * 40 + [8.0] * 20
    found = read_outcome(write_run(tmp_path / "rose", rose, (0.3, 0.9)), guarded=False)
    assert found.diverged is not None and 40 < found.diverged < 50
    assert (found.per, found.best) == (0.9, 0.3) and found.worst > 1
    skipped = [{"step": 41 + i, "kind": "skipped"} for i in range(3)]
    stopped = write_run(tmp_path / "stopped", [1.0] * 40, ended=False, further=skipped)
    found = read_outcome(stopped, guarded=False)
    assert (found.diverged, found.per, found.best, found.skipped) == (40, None, 0.5, 3)


def test_the_rollbacks_of_a_guarded_run(tmp_path) -> None:
    back = [{"found": 45, "to": 32}, {"found": 40, "to": 16}]
    logged = [{"step": 16, "kind": "rollback", **back[1]}]  # the second rollback removed the first
    run = write_run(tmp_path / "run", [1.0] * 60, further=logged, back=back)
    found = read_outcome(run, guarded=True)
    assert (found.diverged, found.rollbacks, found.per) == (45, 2, 0.2)
    stopped = write_run(tmp_path / "stopped", [1.0] * 60, ended=False, further=logged)
    found = read_outcome(stopped, guarded=True)
    assert (found.diverged, found.rollbacks, found.per) == (40, 1, None)
    assert read_outcome(write_run(tmp_path / "other", [1.0] * 60), guarded=True).diverged is None


def test_a_run_of_format_1(tmp_path) -> None:
    back = {"found": 40, "to": 16}
    run = write_run(tmp_path / "run", [1.0] * 60, further=[{"step": 16, "kind": "setback", **back}])
    (run / "results.json").write_text(json.dumps({"setbacks": [back]}))
    assert read_outcome(run, guarded=True)[-2:] == (1, 0.0)
    (run / "results.json").unlink()
    assert read_outcome(run, guarded=True)[-2:] == (1, 0.0)
