"""The loss benchmark measures what it says, on problems of a few frames."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.losses import __main__, parts, peers, report, xla
from benchmarks.losses.catalogue import build
from benchmarks.losses.measure import Clock, Spread, difference, exponent, peak_bytes, spread
from benchmarks.losses.memory import Memory
from benchmarks.losses.problems import Problem, Shape, make

SMALL = Shape(3, 10, 3, 5)


def test_every_round_makes_every_call_once_and_starts_one_later():
    made: list[str] = []
    seconds = Clock().rounds({"a": lambda: made.append("a"), "b": lambda: made.append("b")}, 3)
    assert made == ["a", "b", "b", "a", "a", "b"]
    assert {name: len(samples) for name, samples in seconds.items()} == {"a": 3, "b": 3}


def test_spread_is_the_median_and_the_quartiles():
    assert spread(np.array([5.0, 1.0, 3.0, 2.0, 4.0])) == Spread(3.0, 2.0, 4.0)


def test_exponent_is_that_of_a_power():
    sizes = [1, 2, 4, 8]
    assert exponent(sizes, [3 * size**1.5 for size in sizes]) == pytest.approx(1.5)


def test_peak_bytes_sees_what_a_call_gives_back_before_it_ends():
    size = 64 * 2**20
    peak = peak_bytes(lambda: np.ones(size, np.uint8)[:1].copy())
    if peak is None:
        pytest.skip("no /proc/self/clear_refs")
    assert size * 0.9 < peak < size * 1.5


def test_difference_is_relative_to_the_largest_entry_of_each_array():
    reference = [np.array([10.0, 0.0]), np.array([1.0])]
    assert difference([np.array([10.0, 0.1]), np.array([1.02])], reference) == pytest.approx(0.02)


@pytest.mark.parametrize("kind", ["ctc", "rnnt", "joint"])
def test_plain_versions_agree_on_unequal_lengths(kind: str):
    problem = make(kind, SMALL, ragged=True, width=8)
    assert not problem.full
    programs = [xla.program(loss, problem) for loss in xla.LOSSES[kind].values()]
    ours, plain = (program.read(program.run()) for program in programs)
    assert difference(ours, plain) < 1e-5


def test_a_missing_peer_is_named_with_its_reason():
    reason = peers.missing("no_such_package")
    assert reason is not None
    assert reason.startswith("ModuleNotFoundError")


def test_report_has_a_line_for_every_row_and_a_picture(tmp_path: Path, monkeypatch):
    problem = make("ctc", SMALL)
    programs = {name: build("ctc", name, problem) for name in xla.LOSSES["ctc"]}
    memory = Memory(peak=2_000_000, temporary=None)
    clock = Clock()
    findings = parts.Findings(about={"threads": "1"}, absent={"peer": "why"})
    findings.rows = parts.timing("ctc", SMALL, programs, lambda name: memory, clock, rounds=2)
    shapes = []

    def built(kind: str, name: str, problem: Problem) -> xla.Program:
        """One program for all shapes: compiling one for each would take most of the test."""
        shapes.append(problem.values[0].shape)
        return programs[name]

    monkeypatch.setattr(parts, "build", built)
    findings.growth = parts.growth("ctc", SMALL, Shape(1, 10, 2, 5), (1, 2), clock, rounds=2)
    assert shapes[:4] == [(1, 10, 5), (2, 10, 5), (3, 10, 5), (3, 20, 5)]
    findings.compilation["ctc", xla.OURS] = {10: 0.5}
    text = report.write(tmp_path / "losses", findings)
    assert (tmp_path / "losses.md").read_text(encoding="utf-8") == text
    assert (tmp_path / "losses.png").read_bytes().startswith(b"\x89PNG")
    ours = next(line for line in text.splitlines() if xla.OURS in line)
    assert "| 1.00 | 1.00 to 1.00 | 2.0 | - | - |" in ours
    assert "| ctc | (3, 10, 3, 5) | frames | 10, 20 |" in text
    assert "| peer | why |" in text
    assert 0 <= clock.stolen < 1


def test_the_command_line_takes_parts(tmp_path, monkeypatch):
    chosen = []
    monkeypatch.setattr(__main__, "measure", lambda parts, *_: chosen.append(tuple(parts)))
    monkeypatch.setattr(__main__.processor, "pin", lambda threads: None)
    for given in (["ctc", "rnnt"], ["all"], ["growth", "gpu"]):
        monkeypatch.setattr("sys.argv", ["losses", *given, "--out", str(tmp_path / "out")])
        if "gpu" in given:
            with pytest.raises(SystemExit):
                __main__.main()
        else:
            __main__.main()
    assert chosen == [("ctc", "rnnt"), __main__.PARTS]
