"""Disks that are full or read-only, and run directories that belong to another run."""

import contextlib
import os
import re
import shutil
import subprocess
from pathlib import Path

from benchmarks.faults.report import Row, quoted
from benchmarks.faults.victim import Bench, Victim, copy, ending, fingerprint, prepare, simulate
from modessm_jax.runs import checkpoint_files
from modessm_jax.runs.checkpoints import steps_in

_ROOM = 512 * 2**20  # bytes of the small disk; more than a whole run takes
_LEFT = 64 * 2**10  # of which so much is left when it is filled


def full(bench: Bench) -> Row:
    """The disk fills up after the first checkpoint, and has room again later."""
    fault = "disk full while a checkpoint is saved"
    with contextlib.ExitStack() as stack:
        disk = _small_disk(bench, stack)
        if disk is None:
            return _impossible(fault)
        workdir = prepare(bench.undisturbed, disk / "run")
        victim = Victim(bench.data, workdir)
        victim.wait_until(lambda: bool(steps_in(workdir / "checkpoints")))
        _fill(disk)
        status = victim.end()
        message = _final_error(victim)
        left = steps_in(workdir / "checkpoints")
        sound = bool(left) and all(_sound(workdir / "checkpoints" / str(step)) for step in left)
        (disk / "filler").unlink()
        again = Victim(bench.data, workdir)
        again.must_end_with(0)
        resumed = bool(left) and f"resuming after step {left[-1]}" in again.output
        same = fingerprint(workdir) == bench.fingerprint
    named = "No space left on device" in message and "could not be saved" in message
    return Row(
        fault,
        1,
        f"exit status {status}: {quoted(message)}; checkpoints {left} "
        f"{'sound' if sound else 'DAMAGED'}; with room again: {ending(same)}",
        status == 1 and named and sound and resumed and same,
    )


def read_only(bench: Bench) -> Row:
    """A run is resumed where nothing can be written, and again when it can."""
    fault = "read-only working directory"
    with contextlib.ExitStack() as stack:
        disk = _small_disk(bench, stack)
        if disk is None:
            return _impossible(fault)
        workdir = _half_done(bench, disk / "run")
        before = _listing(workdir)
        _mount("-o", "remount,ro", str(disk))
        victim = Victim(bench.data, workdir)
        status, message = victim.end(), _final_error(victim)
        untouched = _listing(workdir) == before
        _mount("-o", "remount,rw", str(disk))
        Victim(bench.data, workdir).must_end_with(0)
        same = fingerprint(workdir) == bench.fingerprint
    return Row(
        fault,
        1,
        f"exit status {status}: {quoted(message)}; writable again: {ending(same)}",
        status == 1 and "Read-only file system" in message and untouched and same,
    )


def two_runs(bench: Bench) -> Row:
    """A second process starts where a first one trains."""
    workdir = bench.workdir("two_runs")
    first = Victim(bench.data, workdir)
    first.wait_until(lambda: first.step is not None)
    second = Victim(bench.data, workdir, name="second")
    status, message = second.end(), _final_error(second)
    first.must_end_with(0)
    same = fingerprint(workdir) == bench.fingerprint
    return Row(
        "a second run in the same working directory",
        1,
        f"the second: exit status {status}: {quoted(message)}; the first: {ending(same)}",
        status == 1 and "is in use by process" in message and same,
    )


def another_config(bench: Bench) -> Row:
    """A run is resumed with another weight decay."""
    difference = r"optimizer\.weight_decay: 0\.001 then, 0\.5 now"
    change = "--config.optimizer.weight_decay=0.5"
    return _refused(bench, "a checkpoint of another config", difference, bench.data, change)


def another_data_set(bench: Bench) -> Row:
    """A run is resumed with other recordings of the same sessions."""
    other = bench.directory / "other"
    simulate(other, max_words=4)  # on the same days
    difference = r"dataset\.trials\.train\.\S+: '8 trials, .*' then, '8 trials, .*' now"
    return _refused(bench, "a checkpoint of another data set", difference, other)


def _refused(bench: Bench, fault: str, difference: str, data: Path, *overrides: str) -> Row:
    workdir = _half_done(bench, bench.directory / "refused")
    before = _listing(workdir)
    victim = Victim(data, workdir, *overrides)
    status = victim.end()
    shown = re.search(difference, victim.output)
    untouched = _listing(workdir) == before
    Victim(bench.data, workdir).must_end_with(0)
    same = fingerprint(workdir) == bench.fingerprint
    found = "NO difference shown" if shown is None else shown[0]
    return Row(
        fault,
        1,
        f"exit status {status}: {quoted(found)}; with its own: {ending(same)}",
        status == 1 and shown is not None and untouched and same,
    )


def _half_done(bench: Bench, workdir: Path) -> Path:
    """A copy of the undisturbed run that has yet to write its last checkpoint."""
    copy(bench.undisturbed, workdir)
    shutil.rmtree(workdir / "checkpoints" / str(steps_in(workdir / "checkpoints")[-1]))
    return workdir


def _small_disk(bench: Bench, stack: contextlib.ExitStack) -> Path | None:
    """An empty disk of `_ROOM` bytes until the stack is left; None without the right to mount."""
    disk = bench.directory / "disk"
    disk.mkdir(exist_ok=True)
    try:
        _mount("-t", "tmpfs", "-o", f"size={_ROOM}", "tmpfs", str(disk))
    except (FileNotFoundError, subprocess.CalledProcessError):
        return None
    stack.callback(subprocess.run, ["umount", str(disk)], check=True)
    return disk


def _mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True, capture_output=True)


def _fill(disk: Path) -> None:
    free = shutil.disk_usage(disk).free
    with (disk / "filler").open("wb") as filler:
        os.posix_fallocate(filler.fileno(), 0, max(1, free - _LEFT))


def _impossible(fault: str) -> Row:
    return Row(fault, 0, "needs the right to mount a tmpfs, which this process does not have", None)


def _sound(folder: Path) -> bool:
    try:
        checkpoint_files.verify(folder)
    except checkpoint_files.DamagedError:
        return False
    return True


def _listing(workdir: Path) -> dict[str, tuple[int, int]]:
    """Size and modification time of the files that a refused run must not change."""
    files = [
        file
        for place in ("checkpoints", "best", "config.json", "dataset.json", "metrics.jsonl")
        for file in ((workdir / place), *(workdir / place).rglob("*"))
        if file.is_file()
    ]
    stats = {str(file): file.stat() for file in files}
    return {name: (stat.st_size, stat.st_mtime_ns) for name, stat in stats.items()}


def _final_error(victim: Victim) -> str:
    """The error that the process ended with; Orbax's threads may print others after it."""
    errors = re.findall(r"^\w*Error: .*", victim.output, re.MULTILINE)
    ours = [error for error in errors if error.startswith(("CheckpointError", "BusyError"))]
    return (ours or errors or ["NO error"])[-1]
