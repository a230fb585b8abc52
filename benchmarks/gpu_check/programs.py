"""What the parts share: their environment, turns on the GPU, and how a call is timed."""

import argparse
import contextlib
import fcntl
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

from benchmarks.losses.measure import Spread, spread

SHARED = "GPU_CHECK_FOLDER"  # names the folder that the parts of a run share
GIB = 2**30


def environment(smoke: bool, shared: Path) -> dict[str, str]:
    """Environment of every part."""
    given = {
        **os.environ,
        SHARED: str(shared),
        "PYTHONUNBUFFERED": "1",
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",  # several processes share the GPU
        "TF_CPP_MIN_LOG_LEVEL": "2",
    }
    return given | ({"JAX_PLATFORMS": "cpu"} if smoke else {})


def shared_folder() -> Path:
    """The folder that the parts of one run share."""
    return Path(os.environ[SHARED])


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Waits until no other part measures."""
    with (shared_folder() / "measuring").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def times(call: Callable[[], Any], rounds: int) -> Spread:
    """Seconds of a call that returns when its result is there; two calls go before."""
    for _ in range(2):
        call()
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return spread(np.array(seconds))


def milliseconds(found: Spread) -> str:
    """Median and quartiles."""
    return f"{found.median * 1e3:.2f} ({found.lower * 1e3:.2f} to {found.upper * 1e3:.2f})"


def parser(description: str | None) -> argparse.ArgumentParser:
    """A parser that knows --smoke."""
    made = argparse.ArgumentParser(description=description)
    made.add_argument("--smoke", action="store_true", help="toy sizes, on the CPU")
    return made


def contents(stream: IO[str]) -> str:
    """All that was written to a file."""
    stream.seek(0)
    return stream.read()


def kill_group(process: subprocess.Popen[Any]) -> None:
    """Kills a process that leads a session, and all that it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
