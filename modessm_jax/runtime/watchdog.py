"""Shows where a run hangs: dumps the stacks of all threads when it has done nothing for too long.

A disk that stalls, a worker that died or a device that never responds leaves a run that neither
fails nor goes on. The watchdog only reports; it never ends the run, which may well recover.
"""

import contextlib
import faulthandler
import os
import threading
import time
from pathlib import Path

_HEADING = b"Timeout ("  # of each dump that faulthandler makes
_entered: "list[Watchdog]" = []  # one, or none


def alive() -> None:
    """Tells the watchdog that is entered, if any, that the run goes on; call it after each step."""
    for watchdog in _entered:
        watchdog.reset()


class Watchdog:
    """While it is entered, dumps all stacks whenever `alive` was not called for `limit_seconds`.

    Stacks are appended to the file, the innermost call first, then the time; a line is printed.
    While the hang lasts, that repeats every `limit_seconds`. The file is only left behind if a dump
    was made. There can be one watchdog in a process.

    A C thread makes the dumps (`faulthandler.dump_traceback_later`): h5py holds the GIL while it
    reads, so no Python thread would run while the disk stalls. In such a hang the time and the
    printed line come late or never; the file's modification time remains.

    Args:
        path: of the file, usually `<workdir>/stacks.txt`.
        limit_seconds: longer than anything that is no hang. Compilation is the longest: it takes
            minutes for large models, and never calls `alive`. A needless dump does no harm.
    """

    def __init__(self, path: Path, limit_seconds: float = 600.0):
        self._path = path
        self._limit = limit_seconds
        self._left = threading.Event()

    def __enter__(self) -> "Watchdog":
        # Unbuffered and appending: faulthandler writes to the same file descriptor.
        self._file = self._path.open("ab", buffering=0)
        self._arm()
        _entered.append(self)
        self._reporter = threading.Thread(target=self._report, name="watchdog", daemon=True)
        self._reporter.start()
        return self

    def __exit__(self, *exception: object) -> None:
        _entered.remove(self)
        faulthandler.cancel_dump_traceback_later()
        self._left.set()
        self._reporter.join()
        empty = os.fstat(self._file.fileno()).st_size == 0
        self._file.close()
        if empty:
            self._path.unlink(missing_ok=True)

    def reset(self) -> None:
        """Restarts the time limit."""
        # Arming starts a thread, too expensive for every step of a small model.
        if time.monotonic() - self._armed > self._limit / 100:
            self._arm()

    def _arm(self) -> None:
        self._armed = time.monotonic()
        faulthandler.dump_traceback_later(self._limit, repeat=True, file=self._file)

    def _report(self) -> None:
        """Adds the time to each dump, and prints a line."""
        with self._path.open("rb") as file:
            file.seek(0, os.SEEK_END)
            unseen = b""
            while not self._left.wait(min(1.0, self._limit / 4)):
                more = file.read()
                unseen += more
                # A dump that still grows is not complete.
                if more or _HEADING not in unseen:
                    continue
                unseen = b""
                now = time.strftime("%Y-%m-%d %H:%M:%S %z")
                line = f"{now}: nothing done for {self._limit:g} s"
                # A full disk or a closed console is no reason to stop watching.
                with contextlib.suppress(OSError):
                    self._file.write(f"{line}, the stacks are above\n\n".encode())
                    print(f"{line}; the stacks are in {self._path}", flush=True)
