"""A lock file, so that one process at a time trains in a run directory."""

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

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
