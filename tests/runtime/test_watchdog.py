import subprocess
import sys
import time
from pathlib import Path

import pytest

from modessm_jax.runtime.watchdog import Watchdog, alive

# Stands for a read from a disk that stalls: C that keeps the interpreter's lock.
STALLED = """
import ctypes, sys
from pathlib import Path
from modessm_jax.runtime.watchdog import Watchdog

def read_from_a_stalled_disk():
    ctypes.PyDLL(None).sleep(60)

with Watchdog(Path(sys.argv[1]), 0.2):
    read_from_a_stalled_disk()
"""


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "stacks.txt"


def dumps(path: Path) -> int:
    return path.read_text().count("Timeout (") if path.exists() else 0


def wait_for(path: Path, count: int) -> None:
    """Hangs until there are so many dumps, their times included."""
    for _ in range(1000):
        if dumps(path) >= count and path.read_text().count("stacks are above") >= count:
            return
        time.sleep(0.01)
    pytest.fail(f"{dumps(path)} dumps, not {count}")


def test_a_hang_is_shown_with_the_function_that_hangs(path, capsys):
    path.write_text("of an earlier run\n")
    with Watchdog(path, 0.2):
        alive()
        wait_for(path, 1)
    text = path.read_text()
    assert text.startswith("of an earlier run\nTimeout (0:00:00.2")
    assert "in wait_for" in text
    said = capsys.readouterr().out
    assert f"nothing done for 0.2 s; the stacks are in {path}" in said
    assert said[:4] == time.strftime("%Y")


def test_it_waits_on_and_shows_the_next_hang_too(path):
    with Watchdog(path, 0.2):
        wait_for(path, 2)
        alive()
        before = dumps(path)
        for _ in range(30):
            alive()
            time.sleep(0.01)
        assert dumps(path) == before
        wait_for(path, before + 1)


def test_a_run_that_gets_on_leaves_nothing(path, capsys):
    with Watchdog(path, 1.0):
        for _ in range(130):
            time.sleep(0.01)
            alive()
    assert not path.exists()
    assert not capsys.readouterr().out
    time.sleep(1.2)
    assert not path.exists()


def test_the_stacks_come_out_while_the_interpreter_is_locked(path):
    command = [sys.executable, "-c", STALLED, str(path)]
    with subprocess.Popen(command, cwd=Path(__file__).parents[2]) as process:
        for _ in range(1000):
            if dumps(path):
                break
            time.sleep(0.01)
        process.kill()
    assert "in read_from_a_stalled_disk" in path.read_text()
