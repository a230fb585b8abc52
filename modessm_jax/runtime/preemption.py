"""Preemption: a run that gets SIGTERM or SIGINT saves and exits, and can be resumed.

After the first signal the run saves at its next step boundary and exits with status 75 (EX_TEMPFAIL
of sysexits.h: try again). The second one ends the process at once, with status 143 or 130.
"""

import contextlib
import os
import signal
import socket
import threading

import jax
import numpy as np
from jax.experimental import multihost_utils

EXIT_STATUS = 75

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class PreemptedError(RuntimeError):
    """The run was stopped by a signal, and has saved; the same command resumes it."""


class Preemption:
    """Receives the signals while it is entered, in the main thread.

    Python runs signal handlers only between two instructions of the main thread: while that waits
    for XLA to compile, a second signal would have no effect for minutes. But the interpreter writes
    each signal's number to a file descriptor as soon as it arrives, and a thread reads that here.
    """

    def __init__(self):
        self._requested = threading.Event()

    def __enter__(self) -> "Preemption":
        self._reader, self._writer = socket.socketpair()
        self._writer.setblocking(False)
        self._listener = threading.Thread(target=self._listen, name="preemption", daemon=True)
        self._listener.start()
        self._former_fd = signal.set_wakeup_fd(self._writer.fileno())
        # The handlers do nothing; without one, Python would not write to the descriptor.
        self._former = {number: signal.signal(number, lambda *_: None) for number in _SIGNALS}
        return self

    def __exit__(self, *exception: object) -> None:
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
            if self._requested.is_set():
                os._exit(128 + number)
            self._requested.set()
            name = signal.Signals(number).name
            # The reader of the output may have been ended by the same Ctrl-C; keep listening.
            with contextlib.suppress(OSError):
                print(f"{name}: saving after this step; once more ends the run at once", flush=True)

    def reached(self, step: int) -> bool:
        """Whether to save and end now that `step` updates are made.

        Under `jax.distributed` a signal may reach one process only, or several at different steps.
        So all processes must call this at every step; they exchange what they received, and all get
        the same result.
        """
        requested = self._requested.is_set()
        if jax.process_count() == 1:
            return requested
        return bool(np.any(multihost_utils.process_allgather(np.array([requested]))))
