import io

import pytest

from modessm_jax.runtime import progress
from modessm_jax.runtime.progress import Clock, Progress, format_accounts


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def passing(monkeypatch):
    """Time that passes only when told to."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(progress.time, "process_time", lambda: 2 * now[0])  # of two threads

    def pass_(seconds):
        now[0] += seconds

    return pass_


def test_accounts_add_up_and_tell_the_input_stall(passing):
    clock = Clock()
    clock.seconds["step"] = 5.0
    for _ in range(2):
        with clock.account("input"):
            passing(1.0)
        with clock.account("step"):
            passing(0.5)
    with clock.account("compile"):
        passing(2.0)
    assert clock.seconds["step"] == 6.0 and clock.seconds["compile"] == 2.0
    assert clock.input_stall == 2.0 / 10.0
    assert clock.cpu == 6.0  # of the steps and their batches, without compilation
    with pytest.raises(RuntimeError), clock.account("evaluation"):
        passing(3.0)
        raise RuntimeError
    assert clock.seconds["evaluation"] == 3.0


def test_what_was_done_since_the_checkpoint_is_lost_and_nothing_else(passing, tmp_path):
    path = tmp_path / "seconds.json"
    clock = Clock(path)
    with clock.account("step"):
        passing(4.0)
    noted, saved = clock.noted(), dict(clock.seconds)
    for name in ("compile", "input", "step", "evaluation", "checkpoint"):
        with clock.account(name):
            passing(1.0)
    clock.save(now=True)
    resumed = Clock(path)
    assert (resumed.cpu, resumed.seconds) == (12.0, clock.seconds)
    resumed.go_back(noted)
    assert resumed.cpu == 8.0
    assert resumed.seconds == saved | {"compile": 1.0, "checkpoint": 1.0, "lost": 3.0}
    assert resumed.input_stall == 0.0
    assert format_accounts(resumed.seconds).startswith(
        "time 0:00:09: step 0:00:04 (44.44 %), lost 0:00:03 (33.33 %), "
    )


def test_accounts_whose_file_is_lost_go_on_from_the_checkpoint(tmp_path):
    saved = {"compile": 5.0, "step": 4.0, "checkpoint": 2.0, "lost": 1.0}
    clock = Clock(tmp_path / "seconds.json")
    clock.go_back(saved)  # as noted before clocks counted CPU seconds
    assert clock.cpu == 0.0
    assert clock.seconds == saved | {"input": 0.0, "evaluation": 0.0}
    clock.seconds |= {"compile": 6.0, "step": 7.0}
    clock.go_back(saved)
    assert clock.seconds == saved | {"input": 0.0, "evaluation": 0.0, "compile": 6.0, "lost": 4.0}


def test_accounts_are_noted_now_and_then_and_a_torn_file_is_none(passing, tmp_path):
    path = tmp_path / "seconds.json"
    path.write_text("{")
    clock = Clock(path)
    assert clock.seconds["step"] == 0.0
    clock.save()
    assert path.read_text() == "{"
    passing(6.0)
    clock.save()
    assert Clock(path).seconds == clock.seconds


def test_plain_lines_off_a_terminal(passing):
    clock, stream = Clock(), io.StringIO()
    shown = Progress(100, clock, start=10, stream=stream)
    with clock.account("step"):
        passing(5.0)
    with clock.account("evaluation"):
        passing(60.0)
    shown.tick(19, "loss 2")
    shown.show(20, "loss 1", shown.rate(20))
    assert stream.getvalue() == "step 20/100  2.00 steps/s  0:00:40 left  loss 1\n"


def test_one_line_rewritten_on_a_terminal(passing):
    clock, stream = Clock(), Terminal()
    shown = Progress(100, clock, stream=stream)
    passing(1.0)
    shown.tick(1, "loss 2")
    shown.tick(2, "too soon")
    passing(1.0)
    shown.tick(3, "loss 1")
    shown.print("evaluated")
    text = stream.getvalue()
    assert "too soon" not in text and "\n" not in text[: text.index("evaluated")]
    assert text.count("\r") == 4 and text.endswith("evaluated\n")
