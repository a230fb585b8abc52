"""A run directory in use: by one process at a time, and watched for hangs."""

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from modessm_jax.runtime.processes import first_process_folder
from modessm_jax.runtime.watchdog import Watchdog

NAME = "run.lock"


class BusyError(ValueError):
    """Another process is training in the run directory."""


@contextmanager
def run_lock(workdir: Path) -> Iterator[None]:
    """Holds a lock on `run.lock`; the kernel releases it when the process ends, however it ends.

    The file itself stays: removing it would let two processes each lock a file of that name.

    Raises:
      BusyError: another process holds the lock; the message names it.
    """
    # Opened for appending: a refused attempt must not erase what the holder wrote about itself.
    with (workdir / NAME).open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            raise BusyError(
                f"{workdir} is in use by {file.read().strip() or 'another process'}; wait for "
                "that run to end, or choose another workdir"
            ) from error
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield


@contextmanager
def in_use(workdir: Path) -> Iterator[None]:
    """Makes the run directory if need be, locks it, and watches for hangs; see `Watchdog`.

    Raises:
      BusyError: another process trains in it.
    """
    workdir.mkdir(parents=True, exist_ok=True)
    with (
        first_process_folder(workdir) as own,
        run_lock(own),
        Watchdog(own / "stacks.txt"),
    ):
        yield
