"""What the fault matrix does to a run, and its table; the run is a few lines of Python."""

import random
import sys
from pathlib import Path

import pytest

from benchmarks.faults import clock, damage, injections, places, report, signals, soak, victim
from benchmarks.faults.config import STAGES, STEPS, get_config
from benchmarks.faults.report import Row
from modessm_jax.runtime.metric_writer import MetricWriter
from modessm_jax.training.stages import read_stages

# Imitates a run: makes a folder for each step.
ACTOR = """
import os, sys, time
from multiprocessing import get_context
from pathlib import Path

(workdir,) = [Path(a.partition("=")[2]) for a in sys.argv if a.startswith("--workdir=")]
place = workdir / "checkpoints"
place.mkdir(parents=True, exist_ok=True)
done = max((int(p.name) for p in place.glob("*") if p.name.isdigit()), default=0)
if done:
    print(f"resuming after step {done}", flush=True)
for step in range(done + 1, 6):
    time.sleep(0.05)
    partial = place / f"{step}.partial"
    partial.mkdir(exist_ok=True)
    time.sleep(0.05)
    partial.rename(place / str(step))
    print(f"step {step}/5  loss 1", flush=True)
"""

# Imitates a run with a worker that saves and exits after a signal.
OBEDIENT = """
import os, signal, sys, time
from pathlib import Path

(workdir,) = [Path(a.partition("=")[2]) for a in sys.argv if a.startswith("--workdir=")]
(workdir / "checkpoints").mkdir(parents=True, exist_ok=True)
received = []
for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, lambda number, frame: received.append(number))
worker = os.fork()
if not worker:
    signal.signal(signal.SIGTERM, {handler})
    os.close(1)
    os.close(2)
    parent = os.getppid()
    while os.getppid() == parent:
        time.sleep(0.01)
    os._exit(0)
print("train: ", flush=True)
for step in range(1, 101):
    time.sleep(0.02)
    print(f"step {{step}}/100", flush=True)
    if os.waitpid(worker, os.WNOHANG)[0]:
        sys.exit(1)
    if received:
        print("and saved; run again to go on", flush=True)
        sys.exit(75)
(workdir / "checkpoints" / "5").mkdir()
"""


@pytest.fixture
def bench(tmp_path, monkeypatch) -> victim.Bench:
    """Of a run that a script imitates; the names of its checkpoints are its fingerprint."""
    actor = tmp_path / "actor.py"
    actor.write_text(ACTOR)
    monkeypatch.setattr(victim, "COMMAND", (sys.executable, str(actor)))
    monkeypatch.setattr(soak, "fingerprint", names)
    (tmp_path / "undisturbed" / "compiled").mkdir(parents=True)
    return victim.Bench(tmp_path, 0.6, "1 2 3 4 5")


def names(workdir: Path) -> str:
    folders = (workdir / "checkpoints").iterdir()
    return " ".join(sorted(folder.name for folder in folders if folder.name.isdigit()))


def test_the_run_has_all_stages_and_everything_a_resume_could_lose():
    config = get_config().to_dict()
    assert tuple(stage.name for stage in read_stages(config)) == STAGES
    assert {stage.steps for stage in read_stages(config)} == {STEPS}
    assert config["model"]["dropout"] > 0 and config["training"]["ema_decay"] > 0
    assert config["training"]["accumulate"] > 1 and config["data"]["buckets"] > 1
    assert config["data"]["workers"] > 0 and config["augment"]["white_noise"] > 0
    assert [victim.stage_of(step) for step in (0, STEPS, 99)] == [*STAGES[:2], STAGES[-1]]
    assert {"ctc_warmup", "joint", "mode", "flow"} <= set(STAGES)


def test_the_soak_kills_as_often_as_requested_and_compares_every_run(bench, capsys):
    rows = soak.Soak(bench, seed=0).until(6, 2)
    assert [row.passed for row in rows] == [True, True, True]
    assert rows[0].times >= 6 and rows[1].times >= 2
    assert f"{rows[0].times} of {rows[0].times} in runs that end" in rows[0].outcome
    bad = soak.Soak(bench._replace(fingerprint="another"), seed=0).until(1, 0)
    assert bad[0].passed is False and "0 of" in bad[0].outcome
    assert "kills" in capsys.readouterr().out


@pytest.mark.parametrize("ignoring", [True, False])
def test_a_signal_to_all_reaches_the_workers(bench, monkeypatch, ignoring):
    actor = bench.directory / "actor.py"
    actor.write_text(OBEDIENT.format(handler="signal.SIG_IGN" if ignoring else "signal.SIG_DFL"))
    monkeypatch.setattr(signals, "fingerprint", names)
    row = signals.terminated_with_workers(bench._replace(fingerprint="5"))
    assert row.passed is ignoring
    assert ("3 saved, exit statuses [75, 75, 75]" in row.outcome) is ignoring
    assert "ends sha256-identical" in row.outcome


def test_an_evaluation_is_seen_in_the_metrics(tmp_path):
    with MetricWriter(tmp_path) as writer:
        writer.write(4, "train", {"loss": 1.0})
        writer.write(40, "evaluation", {"per": 0.5})
        assert not signals.evaluated(tmp_path, 4)
        writer.write(4, "evaluation", {"per": 0.5})
        assert signals.evaluated(tmp_path, 4)


@pytest.mark.slow
def test_the_injections_are_what_slow_tests_record(tmp_path, monkeypatch):
    file = tmp_path / "test_toy.py"
    text = """
import pytest

@pytest.mark.slow
def test_slow(record_testsuite_property):
    record_testsuite_property("times", 12)
    record_testsuite_property("outcome", "all well")
    assert {assertion}

def test_fast():
    raise AssertionError("not to be run")
"""
    file.write_text(text.format(assertion="True"))
    assert injections.tested("toys", file) == Row("toys", 12, "all well", True)
    file.write_text(text.format(assertion="1 == 2"))
    row = injections.tested("toys", file)
    assert row.passed is False and "FAILED" in row.outcome
    file.write_text("")
    assert injections.tested("toys", file).passed is False
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    row = injections.tested("toys", file)
    assert row.passed is None and "needs pytest" in row.outcome


def test_every_injection_has_its_file():
    root = Path(__file__).parents[2]
    for _, file in injections.TESTS:
        assert "record_testsuite_property" in (root / "tests" / file).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", damage.HARMS)
def test_every_harm_changes_its_file_alone(tmp_path, name):
    file, other = tmp_path / "file", tmp_path / "other"
    for seed in range(20):
        file.write_bytes(bytes(range(100)))
        other.write_bytes(b"other")
        damage.HARMS[name](file, random.Random(seed))
        assert other.read_bytes() == b"other"
        if name == "a file deleted":
            assert not file.exists()
            continue
        found = int.from_bytes(file.read_bytes().ljust(100, b"\0"), "big")
        changed = (found ^ int.from_bytes(bytes(range(100)), "big")).bit_count()
        if name == "one bit flipped":
            assert changed == 1 and len(file.read_bytes()) == 100
        else:
            assert bytes(range(100)).startswith(file.read_bytes())
            assert len(file.read_bytes()) < 100


def test_the_table_shows_what_failed_and_what_was_not_done(tmp_path):
    rows = [
        Row("a", 1, "ends | so\nand so", True),
        Row("b", 2, "no", False),
        Row("c", 0, "needs root", None),
    ]
    report.write(tmp_path / "new" / "faults.md", rows)
    lines = (tmp_path / "new" / "faults.md").read_text().splitlines()
    assert lines[2:5] == [
        "| a | 1 | ends / so and so | passed |",
        "| b | 2 | no | FAILED |",
        "| c | 0 | needs root | not done |",
    ]
    assert report.quoted("x" * 300).endswith("...`")
    assert report.quoted("OSError: '/some/where/run.lock'") == "`OSError: 'run.lock'`"


def test_without_the_right_to_mount_a_disk_it_is_not_done(bench, monkeypatch):
    def refuse(*arguments: str) -> None:
        raise FileNotFoundError("mount")

    monkeypatch.setattr(places, "_mount", refuse)
    row = places.full(bench)
    assert row.passed is None and "tmpfs" in row.outcome


def test_the_clock_goes_backwards_where_the_library_is_loaded(tmp_path):
    library = clock.build(tmp_path)
    if library is None:
        pytest.skip("no C compiler here")
    assert clock.seen_going_back(library)
    assert not clock.seen_going_back(None)
