"""Starts the run on which faults are tried, as a user would, and reads how it ended."""

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import jax
import numpy as np
from orbax.checkpoint import v1 as ocp

from benchmarks.faults.config import STAGES, STEPS
from modessm_jax.runs.checkpoints import load_weights
from modessm_jax.runtime.files import write_json
from modessm_jax.simulate.calendar import Sizes, drawn
from modessm_jax.simulate.files import write_dataset

COMMAND = (
    sys.executable,
    "-m",
    "experiments.train",
    f"--config={Path(__file__).with_name('config.py')}",
)
HUNG = 7200.0  # seconds after which a process counts as hung; a busy machine compiles for long

# Otherwise it compiles for minutes; all runs that are compared use the same programs.
ENVIRONMENT = {
    "JAX_PLATFORMS": "cpu",
    "XLA_FLAGS": "--xla_backend_optimization_level=0",
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    # Otherwise the path of the cache would be part of each key.
    "JAX_PERSISTENT_CACHE_ENABLE_XLA_CACHES": "none",
    "PYTHONUNBUFFERED": "1",
}


class Bench(NamedTuple):
    """What all faults share: simulated data, and the undisturbed run."""

    directory: Path
    seconds: float  # the undisturbed run took, with its programs compiled
    fingerprint: str

    @property
    def data(self) -> Path:
        """The root of the recordings."""
        return self.directory / "data"

    @property
    def undisturbed(self) -> Path:
        """The directory of the run without faults."""
        return self.directory / "undisturbed"

    def workdir(self, name: str) -> Path:
        """A new run directory that holds nothing but compiled programs."""
        return prepare(self.undisturbed, self.directory / name)


def prepare(source: Path, workdir: Path) -> Path:
    """Makes `workdir` anew, with the compiled programs of another run."""
    shutil.rmtree(workdir, ignore_errors=True)
    shutil.copytree(source / "compiled", workdir / "compiled")
    return workdir


def copy(source: Path, target: Path) -> Path:
    """Copies a folder, and replaces what was there."""
    shutil.rmtree(target, ignore_errors=True)
    return Path(shutil.copytree(source, target))


def set_up(directory: Path) -> Bench:
    """Simulates the data, compiles the programs, and trains the undisturbed run, unless it exists.

    The first run compiles; the second one uses its programs, and must end the same.
    """
    facts = directory / "bench.json"
    if facts.exists():
        return Bench(directory, **json.loads(facts.read_text(encoding="utf-8")))
    directory.mkdir(parents=True)
    simulate(directory / "data")
    compiling, undisturbed = directory / "compiling", directory / "undisturbed"
    Victim(directory / "data", compiling).must_end_with(0)
    start = time.monotonic()
    Victim(directory / "data", prepare(compiling, undisturbed)).must_end_with(0)
    seconds = time.monotonic() - start
    ends = [fingerprint(workdir) for workdir in (compiling, undisturbed)]
    if ends[0] != ends[1]:
        raise RuntimeError(f"two undisturbed runs differ: {directory}")
    kept = [{path.name for path in w.glob("compiled/*-cache")} for w in (compiling, undisturbed)]
    if kept[0] != kept[1]:
        raise RuntimeError(f"a run compiles programs that are in its cache: {kept[1] - kept[0]}")
    write_json(facts, {"seconds": seconds, "fingerprint": ends[1]})
    return Bench(directory, seconds, ends[1])


def simulate(root: Path, *, max_words: int = 3) -> None:
    """Two sessions of ten short sentences, with eight channels."""
    sizes = Sizes(sessions=2, train=8, val=2, test=0, min_words=2, max_words=max_words)
    plan = drawn(sizes, electrodes=4, seed=0)
    write_dataset(root, plan, overwrite=True, report=lambda line: None)


class Victim:
    """One process of the run, in a session of its own; its output goes to a file."""

    def __init__(
        self,
        data: Path,
        workdir: Path,
        *overrides: str,
        name: str = "",
        environment: Mapping[str, str] = MappingProxyType({}),
    ):
        places = (f"--config.data.root={data}", f"--workdir={workdir}")
        # Beside the data: the disk of the run directory may be full.
        self._log = data.with_name(f"{name or workdir.name}.log")
        with self._log.open("w", encoding="utf-8") as log:
            self._process = subprocess.Popen(
                [*COMMAND, *places, *overrides],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**ENVIRONMENT, **os.environ, **environment},
                start_new_session=True,
            )

    @property
    def output(self) -> str:
        """All it has printed."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    @property
    def step(self) -> int | None:
        """The last step in its output; None before it resumed or made the first."""
        steps = re.findall(r"^(?:resuming after )?step (\d+)", self.output, re.MULTILINE)
        return int(steps[-1]) if steps else None

    def wait_until(self, condition: Callable[[], bool]) -> bool:
        """Whether the condition came true before the process ended."""
        give_up = time.monotonic() + HUNG
        while not condition():
            if not self.running:
                return False
            if time.monotonic() > give_up:
                self.stop()
                raise RuntimeError(f"hangs; its output is in {self._log}")
            time.sleep(0.01)
        return True

    def wait_until_printed(self, text: str) -> bool:
        """Whether it printed the text before it ended."""
        return self.wait_until(lambda: text in self.output)

    def end(self) -> int:
        """Waits for its end; the exit status, negative for a signal."""
        self.wait_until(lambda: False)
        return self._process.wait()

    def must_end_with(self, status: int) -> None:
        """Waits for its end.

        Raises:
            RuntimeError: it ended with another status; the message has its last output.
        """
        ended = self.end()
        if ended != status:
            raise RuntimeError(f"ended with {ended}, not {status}: {self.output[-2000:]}")

    def signal_all(self, number: signal.Signals) -> None:
        """Sends a signal to the process and its loader's workers, as a terminal does."""
        os.killpg(self._process.pid, number)

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal to the process, not to its loader's workers."""
        self._process.send_signal(number)

    def survivors(self, seconds: float = 20.0) -> int:
        """Counts workers still running `seconds` after the process ended, and kills them."""
        give_up = time.monotonic() + seconds
        while members := _members(self._process.pid):
            if time.monotonic() > give_up:
                self.stop()
                return members
            time.sleep(0.2)
        return 0

    def stop(self) -> None:
        """Kills it and its workers."""
        if _members(self._process.pid):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


def _members(group: int) -> int:
    """How many processes of a group are alive, zombies left out."""
    count = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, of_group = stat.read_text().rpartition(")")[2].split()[:3]
        except (FileNotFoundError, ProcessLookupError):
            continue
        count += int(of_group) == group and state not in "ZX"
    return count


def stage_of(step: int) -> str:
    """The stage of the update after `step` updates."""
    return STAGES[min(step // STEPS, len(STAGES) - 1)]


def half_written(workdir: Path) -> bool:
    """Whether a checkpoint is being written, or was when the process died."""
    return any(any(workdir.glob(f"{place}/*.partial*")) for place in ("checkpoints", "best"))


def fingerprint(workdir: Path) -> str:
    """sha256 of a complete run: arrays and history of the last checkpoint, and metrics.jsonl.

    The seconds in the history are left out.
    """
    saved = load_weights(workdir / "checkpoints", None)
    folder = workdir / "checkpoints" / str(saved.step)
    place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    like = ocp.checkpointables_metadata(str(folder)).metadata["optimizer"]
    like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), like)
    optimizer = ocp.load_checkpointables(str(folder), {"optimizer": like})["optimizer"]
    digest = hashlib.sha256(f"step {saved.step}".encode())
    leaves = jax.tree_util.tree_leaves_with_path((saved.params, saved.ema, optimizer))
    for path, leaf in leaves:
        digest.update(f"{jax.tree_util.keystr(path)} {leaf.dtype}{leaf.shape}".encode())
        digest.update(np.asarray(leaf).tobytes())
    history = {k: v for k, v in json.loads(saved.history.to_json()).items() if k != "seconds"}
    digest.update(json.dumps(history, sort_keys=True).encode())
    digest.update((workdir / "metrics.jsonl").read_bytes())
    return digest.hexdigest()


def ending(same: bool) -> str:
    """How a run ended, for the table."""
    return "ends sha256-identical" if same else "ends DIFFERENT"
