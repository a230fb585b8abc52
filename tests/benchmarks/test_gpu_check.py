"""The GPU check survives a part that fails and one that hangs, and writes what the others found."""

import pytest

from benchmarks.gpu_check.__main__ import Part, main
from benchmarks.gpu_check.suite import outcomes


def test_a_failing_part_is_reported_and_the_others_go_on(tmp_path, monkeypatch):
    (tmp_path / "good.py").write_text("print('| 1 | 2 |')")
    (tmp_path / "bad.py").write_text("print('before'); raise ValueError('no such device')")
    (tmp_path / "hangs.py").write_text("import time; print('begun', flush=True); time.sleep(60)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    parts = [[Part("Bad", "bad"), Part("Hangs", "hangs", seconds=2.0)], [Part("Good", "good")]]
    out = tmp_path / "gpu.md"
    with pytest.raises(SystemExit) as stop:
        main(["--smoke", "--out", str(out)], of=lambda smoke: parts)
    assert stop.value.code == 1
    text = out.read_text(encoding="utf-8")
    assert "| Bad | exit status 1 |" in text and "ValueError: no such device" in text
    assert "before" in text and "begun" in text and "| Hangs | stopped after 2 s |" in text
    assert "| Good | ran |" in text and "| 1 | 2 |" in text


def test_outcomes_are_read_with_and_without_workers():
    text = (
        "[gw0] [ 50%] PASSED tests/a.py::test_b \ntests/a.py::test_c FAILED          [ 66%]\n"
        "FAILED tests/a.py::test_c - assert 1\n"
    )
    assert outcomes(text) == {
        "tests/a.py::test_b": "PASSED",
        "tests/a.py::test_c": "FAILED",
    }
