"""Ending a run in good order when the machine is wanted back.

The first SIGTERM or SIGINT asks the run to save at its next step boundary and to exit with status
75 (EX_TEMPFAIL of sysexits.h: try again); the second one ends the process at once, with 143 or 130.
"""

import contextlib
import os
import signal
import socket
import threading
from types import TracebackType

import jax
import numpy as np
from jax.experimental import multihost_utils

EXIT_STATUS = 75

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class PreemptedError(RuntimeError):
    """The run was asked to end, and has saved; run again, it goes on from there."""


class Preemption:
    """Waits for signals while it is entered, in the main thread.

    Python runs signal handlers only between two instructions of the main thread, so that one who
    waits for XLA to compile would not hear a second signal for minutes. The interpreter does write
    each signal's number to a file descriptor the moment it arrives; a thread of ours reads there.
    """

    def __init__(self):
        self._asked = threading.Event()

    def __enter__(self) -> "Preemption":
        self._reader, self._writer = socket.socketpair()
        self._writer.setblocking(False)
        self._listener = threading.Thread(target=self._listen, name="preemption", daemon=True)
        self._listener.start()
        self._former_fd = signal.set_wakeup_fd(self._writer.fileno())
        # The handlers do nothing; without one, Python would not write to the descriptor.
        self._former = {number: signal.signal(number, _ignore) for number in _SIGNALS}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for number, handler in self._former.items():
            # None stands for a handler that was not set from Python and cannot be set again.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        signal.set_wakeup_fd(self._former_fd)
        self._writer.close()
        self._listener.join()
        self._reader.close()

    def _listen(self) -> None:
        while received := self._reader.recv(1):
            number = received[0]
            if number not in _SIGNALS:
                continue
            if self._asked.is_set():
                os._exit(128 + number)
            self._asked.set()
            name = signal.Signals(number).name
            # Who read the output may have been ended by the same Ctrl-C; we must go on listening.
            with contextlib.suppress(OSError):
                print(f"{name}: saving after this step; once more ends the run at once", flush=True)

    def reached(self, step: int) -> bool:
        """Whether to save and end now that `step` updates are made.

        Under `jax.distributed` a signal may reach one process only, or several at different steps:
        there the processes ask each other, so all must call this at every step, and all get the
        same answer.
        """
        asked = self._asked.is_set()
        if jax.process_count() == 1:
            return asked
        return bool(np.any(multihost_utils.process_allgather(np.array([asked]))))


def _ignore(number: int, frame: object) -> None:
    del number, frame
