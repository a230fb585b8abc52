"""A wall clock that goes back an hour while the run is trained, and again while it resumes."""

import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.faults.report import Row
from benchmarks.faults.victim import Bench, Victim, ending, fingerprint

# Replaces `clock_gettime` of the C library for the interpreter: some seconds into the process, the
# wall clock goes back an hour. The monotonic clock does not, as when an administrator sets the
# clock. Native libraries see the real clock: the kernel times their waits by it, and with another
# one they would wait for ever.
AFTER = "CLOCK_BACK_AFTER"  # environment variable: seconds
_SHIM = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static int (*real)(clockid_t, struct timespec *);

static int from_python(void *caller) {
    Dl_info of;
    if (!dladdr(caller, &of)) return 0;
    const char *name = strrchr(of.dli_fname, '/');
    name = name ? name + 1 : of.dli_fname;
    return !strncmp(name, "python", 6) || !strncmp(name, "libpython", 9);
}

static time_t lost(void) {
    static time_t begun;
    struct timespec now;
    real(CLOCK_MONOTONIC, &now);
    if (!begun) begun = now.tv_sec;
    return now.tv_sec - begun >= atoi(getenv("CLOCK_BACK_AFTER")) ? 3600 : 0;
}

int clock_gettime(clockid_t id, struct timespec *out) {
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    int status = real(id, out);
    int shifted = id == CLOCK_REALTIME && from_python(__builtin_return_address(0));
    if (!status && shifted) out->tv_sec -= lost();
    return status;
}
"""

_PROBE = "import time; a = time.time(); time.sleep(2.5); print(time.time() - a < -3000)"


def backwards(bench: Bench) -> Row:
    """The run is killed after the clock went back, and run again."""
    fault = "clock going backwards"
    library = build(bench.directory)
    if library is None:
        return Row(fault, 0, "needs a C compiler (cc), which is not here", None)
    seconds = 15  # it is up by then
    environment = {"LD_PRELOAD": str(library), AFTER: str(seconds)}
    workdir = bench.workdir("clock")
    when = time.monotonic() + seconds + 5
    victim = Victim(bench.data, workdir, environment=environment)
    reached = victim.wait_until(lambda: time.monotonic() > when and (victim.step or 0) >= 5)
    victim.signal(signal.SIGKILL)
    victim.end()
    victim.survivors()
    status = Victim(bench.data, workdir, environment=environment).end()
    same = status == 0 and fingerprint(workdir) == bench.fingerprint
    return Row(
        fault,
        2,
        f"an hour lost, killed on the way and run again: exit status {status}, {ending(same)}",
        seen_going_back(library) and reached and same,
    )


def build(directory: Path) -> Path | None:
    """Compiles the library to be named in LD_PRELOAD; None where there is no compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        return None
    source, library = directory / "clock.c", directory / "clock.so"
    source.write_text(_SHIM, encoding="utf-8")
    command = [compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(source), "-ldl"]
    subprocess.run(command, check=True)
    return library


def seen_going_back(library: Path | None) -> bool:
    """Whether Python's clock goes back where that library stands before the C library's."""
    probe = subprocess.run(
        [sys.executable, "-c", _PROBE],
        env={} if library is None else {"LD_PRELOAD": str(library), AFTER: "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    return probe.stdout.strip() == "True"
