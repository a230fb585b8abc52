import os
import signal
import subprocess
import sys

import pytest

from modessm_jax.runtime.lock import BusyError, run_lock

HOLDER = """
import sys, time
from pathlib import Path
from modessm_jax.runtime.lock import run_lock

with run_lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_run_is_refused_and_told_of_the_first(tmp_path):
    with run_lock(tmp_path):
        for _ in range(2):
            refused = pytest.raises(BusyError, match=rf"in use by process {os.getpid()} on ")
            with refused, run_lock(tmp_path):
                pass
    with run_lock(tmp_path):
        pass


def test_the_lock_dies_with_its_process(tmp_path):
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        refused = pytest.raises(BusyError, match=rf"in use by process {holder.pid} on ")
        with refused, run_lock(tmp_path):
            pass
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    with run_lock(tmp_path):
        pass
