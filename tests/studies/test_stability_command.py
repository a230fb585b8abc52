"""The command of the stability study, with training replaced by runs written by hand."""

import json
import time
from pathlib import Path

import pytest

from configs import common
from studies.shared import Ended
from studies.stability import __main__

GIVEN = ["--rates", "1e-3", "2e-3", "--warmups", "5", "--clips", "1.0", "--norms", "with"]


@pytest.fixture
def trained(monkeypatch) -> list[list[str]]:
    """Runs whose loss rises at the higher rate, unless they are guarded; the commands given."""
    commands: list[list[str]] = []

    def run(workdir: Path, arguments: list[str]) -> Ended:
        workdir.mkdir(parents=True)
        (workdir / "output.log").write_text("")
        commands.append(arguments)
        value = dict(word.split("=", 1) for word in arguments)
        high = value["--config.optimizer.peak_lr"] == "0.002"
        rises = high and value["--config.guard.divergence"] == "False"
        losses = [1.0] * 40 + [9.0 if rises else 0.9] * 20
        rows: list[dict] = [
            {"step": i, "kind": "train", "skipped": 0.0, "loss": loss, "gradient_norm": 1.0}
            for i, loss in enumerate(losses, 1)
        ]
        rows.append({"step": 60, "kind": "evaluation", "per": 0.8 if rises else 0.1})
        (workdir / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        (workdir / "config.json").write_text(
            json.dumps({"guard": {**common.guard(), "window": 16}})
        )
        (workdir / "results.json").write_text(json.dumps({"rollbacks": []}))
        return Ended(0, 0)

    monkeypatch.setattr(__main__, "train_in_process", run)
    return commands


def folders(folder: Path) -> list[str]:
    return ["--data", str(folder / "d"), "--work", str(folder / "w"), "--out", str(folder / "o")]


def test_only_what_diverged_is_guarded_and_nothing_is_trained_twice(tmp_path, trained) -> None:
    further = ["--", "--config.data.batch_size=8"]
    __main__.main([*folders(tmp_path), *GIVEN, *further])
    assert len(trained) == 3  # two rates, and the higher once more
    assert all(command[-1] == "--config.data.batch_size=8" for command in trained)
    text = (tmp_path / "o.md").read_text()
    assert "1 of 2 runs diverged." in text and "guarded: ended with 10.00 % PER, within" in text
    assert str(tmp_path) not in text and "--config.data.batch_size=8" in text
    assert "    python -m studies.stability --data DATA --work WORK --out OUT --rates 1e-3" in text
    assert (tmp_path / "o.png").exists()
    __main__.main([*folders(tmp_path), *GIVEN, *further])
    assert len(trained) == 3
    with pytest.raises(SystemExit, match="trained with other arguments"):
        __main__.main([*folders(tmp_path), *GIVEN, "--steps", "50", *further])


def test_a_run_that_fails_ends_the_study_and_its_output_is_named(tmp_path, monkeypatch):
    started = []

    def fail(workdir: Path, arguments: list[str]) -> Ended:
        started.append(arguments)
        time.sleep(0.3)
        workdir.mkdir(parents=True)
        (workdir / "output.log").write_text("ValueError: no such data\n")
        return Ended(1, 0)

    monkeypatch.setattr(__main__, "train_in_process", fail)
    with pytest.raises(SystemExit, match=r"failed; its output is in .*output.log"):
        __main__.main([*folders(tmp_path), "--rates", *(f"{n}e-3" for n in range(1, 10))])
    assert len(started) < 10  # of 72; one or two begin before the first is known to have failed
