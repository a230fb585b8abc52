"""What the studies share: runs in processes of their own, tables, error rates of several seeds."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from modessm_jax.text import Edits, bootstrap_interval, percent, total

_SECONDS_TO_SAVE = 20.0  # for a run that Ctrl-C has reached


class Ended(NamedTuple):
    """The end of a process."""

    status: int
    memory: int  # most KiB that it took; 0 where the system does not tell


def train_in_process(
    workdir: Path, arguments: Sequence[str], environment: Mapping[str, str] | None = None
) -> Ended:
    """Trains a run, or goes on with it, in a process of its own; what it prints is in output.log.

    Where the study is interrupted, the run saves and ends too.

    Args:
        workdir: of the run.
        arguments: of `experiments.train`, beside the workdir.
        environment: variables that the process has beside those of this one.
    """
    workdir.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "experiments.train", f"--workdir={workdir}", *arguments]
    memory = 0
    with output_of(workdir).open("w", encoding="utf-8") as log:
        variables = {**os.environ, **(environment or {})}
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=variables)
        try:
            while process.poll() is None:
                memory = max(memory, _memory(process.pid))
                with suppress(subprocess.TimeoutExpired):
                    process.wait(timeout=1.0)
        except (
            KeyboardInterrupt
        ):  # Ctrl-C reached the run too; a second signal would end it at once
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout=_SECONDS_TO_SAVE)
            raise
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()
    return Ended(process.returncode, memory)


def output_of(workdir: Path) -> Path:
    """The file of what `train_in_process` printed."""
    return workdir / "output.log"


def _memory(pid: int) -> int:
    """Most KiB of memory that a process has taken; 0 where the system does not tell."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except OSError:  # it has ended, or this is not Linux
        return 0
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    return int(found[1]) if found else 0


def without_folders(given: Sequence[str], *options: str) -> Iterator[str]:
    """The arguments with the names of these options for their values, files of one machine."""
    words = iter(given)
    for word in words:
        yield word
        if word in options:
            next(words, None)
            yield word[2:].upper()


def read_log(workdir: Path) -> list[dict[str, Any]]:
    """The lines of a run's metrics.jsonl."""
    text = (workdir / "metrics.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown, without a line break at its end."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def together(seeds: Sequence[Sequence[Edits]]) -> list[Edits]:
    """Each trial's edits, summed over the seeds, which all decoded the same trials."""
    return [total(of_seeds) for of_seeds in zip(*seeds, strict=True)]


def difference(ours: Sequence[Sequence[Edits]], theirs: Sequence[Sequence[Edits]]) -> str:
    """Error rate of ours less theirs, all seeds together, with its 95 % interval over trials."""
    one, other = together(ours), together(theirs)
    low, high = bootstrap_interval(one, seed=0, against=other)
    mean = total(one).rate - total(other).rate
    return f"{percent(mean)} ({percent(low)} to {percent(high)})"
