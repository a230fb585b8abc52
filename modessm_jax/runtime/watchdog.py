"""Shows where a run hangs: the stacks of all threads, when nothing has happened for too long.

A disk that stalls, a worker that died or a device that never answers leaves a run that neither
fails nor goes on. This only tells; it never ends the run, which may well recover.
"""

import contextlib
import faulthandler
import os
import threading
import time
from pathlib import Path
from types import TracebackType

# Heads each dump that faulthandler makes.
_HEADING = b"Timeout ("
# The watchdog that is entered, if one is.
_present: "list[Watchdog]" = []


def alive() -> None:
    """To be called whenever something is done: a step, a batch of an evaluation, a save.

    Does nothing where no watchdog watches.
    """
    for watchdog in _present:
        watchdog.wait_anew()


class Watchdog:
    """While it is entered, dumps all stacks whenever `alive` was not called for `limit_seconds`.

    Stacks are appended to the file, the innermost call first, then the time; a line on the console
    says so. While the hang lasts, that repeats every `limit_seconds`. The file is only left behind
    if a dump was made. There can be one watchdog in a process.

    A thread of the C library makes the dumps (`faulthandler.dump_traceback_later`): h5py holds the
    interpreter's lock while it reads, so that with the disk no thread of Python would wake. In such
    a hang the time and the console's line come late or never; the file's own time tells when.

    Args:
        path: of the file, usually `<workdir>/stacks.txt`.
        limit_seconds: longer than anything that is no hang, compilation above all: it calls nothing
            that could say it is alive, and large models take XLA minutes. A dump too many does no
            harm.

    Raises:
        ValueError: the limit is not positive.
    """

    def __init__(self, path: Path, limit_seconds: float = 600.0):
        if not limit_seconds > 0:
            raise ValueError(f"limit_seconds is {limit_seconds}; a watchdog waits for some time")
        self._path = path
        self._limit = limit_seconds
        self._left = threading.Event()

    def __enter__(self) -> "Watchdog":
        # Unbuffered and appending, as faulthandler writes to the same place behind Python's back.
        self._file = self._path.open("ab", buffering=0)
        self._arm()
        _present.append(self)
        self._reporter = threading.Thread(target=self._report, name="watchdog", daemon=True)
        self._reporter.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        _present.remove(self)
        faulthandler.cancel_dump_traceback_later()
        self._left.set()
        self._reporter.join()
        empty = os.fstat(self._file.fileno()).st_size == 0
        self._file.close()
        if empty:
            self._path.unlink(missing_ok=True)

    def wait_anew(self) -> None:
        """Counts the seconds from now on."""
        # Arming starts a thread, too much for every step of a small model.
        if time.monotonic() - self._armed > self._limit / 100:
            self._arm()

    def _arm(self) -> None:
        self._armed = time.monotonic()
        faulthandler.dump_traceback_later(self._limit, repeat=True, file=self._file)

    def _report(self) -> None:
        """Adds the time to each dump, and says that there is one."""
        with self._path.open("rb") as file:
            file.seek(0, os.SEEK_END)
            unseen = b""
            while not self._left.wait(min(1.0, self._limit / 4)):
                more = file.read()
                unseen += more
                # One that still grows is not complete.
                if more or _HEADING not in unseen:
                    continue
                unseen = b""
                now = time.strftime("%Y-%m-%d %H:%M:%S %z")
                line = f"{now}: nothing done for {self._limit:g} s"
                # A full disk, or a console that is gone, is no reason to stop watching.
                with contextlib.suppress(OSError):
                    self._file.write(f"{line}, the stacks are above\n\n".encode())
                    print(f"{line}; where it waits is in {self._path}", flush=True)
