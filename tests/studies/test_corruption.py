"""The flow bridge of a tiny run on corrupted recordings."""

import pytest

from studies.corruption import LEVELS, main


@pytest.mark.slow
def test_every_level_has_a_row(run, tmp_path, capsys):
    main([str(run), "--out", str(tmp_path / "corruption")])
    text = (tmp_path / "corruption.md").read_text()
    assert text in capsys.readouterr().out
    rows = [line for line in text.splitlines() if line.startswith("| ")][2:]
    assert [row.split()[1] for row in rows] == list(LEVELS)
    assert len({row.count("|") for row in rows}) == 1
    assert "the encoder computes" in text
