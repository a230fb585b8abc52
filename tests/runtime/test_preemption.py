import os
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from jax.experimental import multihost_utils

from modessm_jax.runtime.preemption import Preemption

# Stands for a main thread that is busy in C and runs no Python for a long time.
BUSY = """
import ctypes
from modessm_jax.runtime.preemption import Preemption

with Preemption():
    print("ready", flush=True)
    ctypes.CDLL(None).sleep(60)
    ctypes.CDLL(None).sleep(60)
"""


def eventually(condition):
    for _ in range(500):
        if condition():
            return True
        time.sleep(0.01)
    return False


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_is_remembered_and_all_is_put_back(number, capsys):
    before = signal.getsignal(number)
    with Preemption() as preemption:
        assert not preemption.reached(3)
        os.kill(os.getpid(), number)
        assert eventually(lambda: preemption.reached(4))
    assert signal.getsignal(number) is before
    assert signal.Signals(number).name in capsys.readouterr().out


def test_other_signals_are_none_of_its_business():
    former = signal.signal(signal.SIGUSR1, lambda *_: None)
    try:
        with Preemption() as preemption:
            os.kill(os.getpid(), signal.SIGUSR1)
            time.sleep(0.1)
            assert not preemption.reached(1)
    finally:
        signal.signal(signal.SIGUSR1, former)


def test_the_second_signal_ends_the_process_at_once():
    command = [sys.executable, "-c", BUSY]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        assert "SIGTERM: saving" in process.stdout.readline()
        start = time.monotonic()
        process.send_signal(signal.SIGINT)
        assert process.wait() == 128 + signal.SIGINT
        assert time.monotonic() - start < 5


def test_many_processes_agree(monkeypatch):
    """One process of three was asked: all end at that step, also those that were not."""
    asked = {"others": [False, False]}

    def gather(own):
        return np.concatenate([own, asked["others"]])

    monkeypatch.setattr(jax, "process_count", lambda: 3)
    monkeypatch.setattr(multihost_utils, "process_allgather", gather)
    with Preemption() as preemption:
        assert not preemption.reached(1)
        asked["others"] = [False, True]
        assert preemption.reached(2)
