"""The latent mode of a tiny run against the truth beside its recordings."""

import numpy as np
import pytest

from studies.modes import accuracy, main


def test_accuracy_is_that_of_the_better_assignment():
    posteriors = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.3, 0.7]])
    labels = ["silent", "vocalized", "silent", "silent"]
    assert accuracy(posteriors, labels) == accuracy(posteriors[:, ::-1], labels) == 0.75
    with pytest.raises(SystemExit, match="two modes and two labels"):
        accuracy(posteriors, ["silent"] * 4)


@pytest.mark.slow
def test_the_table_and_the_differences(run, tmp_path, capsys):
    main([str(run), "--without", str(run), "--out", str(tmp_path / "modes")])
    text = (tmp_path / "modes.md").read_text()
    assert text in capsys.readouterr().out
    (row,) = (line for line in text.splitlines() if line.startswith(f"| {run.name} | 3 | "))
    assert "| 66.67 % |" in row  # chance
    assert "- z inferred less trained without modes: 0.00 % (0.00 % to 0.00 %)" in text


def test_runs_without_modes_go_with_the_others_in_pairs(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["a", "b", "--without", "c", "--out", str(tmp_path / "modes")])
    assert "--without has 1 runs for 2" in capsys.readouterr().err
