"""Runs commands, each in a process of its own that has its packages imported already.

Importing them takes seconds, most of what such a test takes. One process imports them, and is
forked for each command.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

_SERVER = """
import importlib, json, os, runpy, sys

for name in sys.argv[1:]:
    importlib.import_module(name)
for line in sys.stdin:
    module, arguments, *files = json.loads(line)
    child = os.fork()
    if not child:
        for number, file in enumerate(files, 1):
            os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT), number)
        sys.argv = [module, *arguments]
        runpy.run_module(module, run_name="__main__", alter_sys=True)
        sys.exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class Commands:
    """Runs `python -m MODULE ARGUMENTS`; a context manager.

    Args:
        imports: modules to import before; not those of the commands, which define flags.
    """

    def __init__(self, *imports: str):
        self._server = subprocess.Popen(
            [sys.executable, "-c", _SERVER, *imports],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> "Commands":
        return self

    def __exit__(self, *failure: object) -> None:
        self._server.communicate()

    def __call__(self, module: str, *arguments: object) -> subprocess.CompletedProcess[str]:
        """Runs a command to its end."""
        given = list(map(str, arguments))
        assert self._server.stdin is not None and self._server.stdout is not None
        with tempfile.TemporaryDirectory() as folder:
            files = [Path(folder) / name for name in ("stdout", "stderr")]
            print(
                json.dumps([module, given, *map(str, files)]), file=self._server.stdin, flush=True
            )
            status = int(self._server.stdout.readline())
            said = [file.read_text() for file in files]
        return subprocess.CompletedProcess([module, *given], status, *said)
