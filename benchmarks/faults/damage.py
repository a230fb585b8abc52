"""Bits flipped, files cut and files deleted in a real checkpoint: none may be loaded."""

import contextlib
import io
import json
import os
import random
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks.faults.report import Row
from benchmarks.faults.victim import Bench, Victim, copy, fingerprint
from modessm_jax.data.batches import TrainingBatches
from modessm_jax.data.plan import BatchPlan
from modessm_jax.data.recordings import read_recordings
from modessm_jax.runs.checkpoints import CheckpointError, Checkpoints, steps_in
from modessm_jax.runs.load import build_model
from modessm_jax.runs.state import TrainState, create_state
from modessm_jax.runtime.mesh import data_mesh
from modessm_jax.training.stages import plan_stages

Harm = Callable[[Path, random.Random], str]  # damages a file; returns where


def flip(file: Path, rng: random.Random) -> str:
    """Flips one bit."""
    bit = rng.randrange(8 * file.stat().st_size)
    with file.open("r+b") as content:
        content.seek(bit // 8)
        (byte,) = content.read(1)
        content.seek(bit // 8)
        content.write(bytes([byte ^ 1 << bit % 8]))
    return f"bit {bit}"


def cut(file: Path, rng: random.Random) -> str:
    """Keeps fewer bytes than there were."""
    length = rng.randrange(file.stat().st_size)
    os.truncate(file, length)
    return f"after {length} bytes"


def delete(file: Path, rng: random.Random) -> str:
    """Removes the file."""
    del rng
    file.unlink()
    return "gone"


HARMS: dict[str, Harm] = {
    "one bit flipped": flip,
    "a file cut short": cut,
    "a file deleted": delete,
}

_GOOD = "set aside and reported, and the previous one restored"


class Damage:
    """Damages the last checkpoint of the undisturbed run, and restores, again and again."""

    def __init__(self, bench: Bench, seed: int):
        self._bench = bench
        self._random = random.Random(seed)
        self._workdir = copy(bench.undisturbed, bench.directory / "damaged")
        self._state, self._batches = resumable(bench)
        self._previous, self._last = steps_in(self._workdir / "checkpoints")[-2:]
        # What a restore must give: that of a run without its last checkpoint.
        with self._without_the_last():
            _, self._expected, _ = self._restore()

    def rows(self, times: dict[str, int]) -> Iterator[Row]:
        """One row for each kind of damage, done `times` times to a random byte or file."""
        for name, count in times.items():
            outcomes = Counter(
                self._one(HARMS[name], by_bytes=name == "one bit flipped") for _ in range(count)
            )
            good = outcomes[_GOOD]
            counted = ", ".join(f"{n} {outcome}" for outcome, n in outcomes.most_common())
            yield Row(f"{name}, in the last checkpoint", count, counted, good == count)

    def rerun(self) -> Row:
        """Damages the last checkpoint in each way, and trains the run to its end again."""
        same = 0
        for name, harm in HARMS.items():
            workdir = copy(self._bench.undisturbed, self._bench.directory / "rerun")
            weights = workdir / "checkpoints" / str(self._last) / "weights"
            files = [path for path in weights.rglob("*") if path.is_file()]
            harm(max(files, key=lambda path: path.stat().st_size), self._random)
            victim = Victim(self._bench.data, workdir)
            victim.must_end_with(0)
            reported = f"{self._last} is damaged" in victim.output
            back = f"resuming after step {self._previous}" in victim.output
            same += reported and back and fingerprint(workdir) == self._bench.fingerprint
            print(f"{name}, and the whole run again: {same} the same", flush=True)
        return Row(
            "each of these in a run, and run again",
            len(HARMS),
            f"{same} report it, resume from the checkpoint before and end sha256-identical",
            same == len(HARMS),
        )

    def _one(self, harm: Harm, *, by_bytes: bool) -> str:
        """Damages one file, restores from the rest, and repairs it."""
        folder = self._workdir / "checkpoints" / str(self._last)
        aside = folder.with_name(f"{folder.name}.damaged")
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        sizes = [path.stat().st_size for path in files]
        # A bit must be in some byte, and a cut take some away.
        weights = sizes if by_bytes else [size > 0 or harm is delete for size in sizes]
        (file,) = self._random.choices(files, weights)
        whole = file.read_bytes()
        where = f"{file.relative_to(folder)}: {harm(file, self._random)}"
        try:
            step, found, output = self._restore()
        except CheckpointError as error:
            return f"REFUSED to resume ({where}; {error})"
        finally:
            if aside.is_dir():
                aside.rename(folder)
            file.write_bytes(whole)
        if step == self._last:
            return f"LOADED SILENTLY ({where})"
        if f"set aside as {aside.name}" not in output:
            return f"not reported ({where})"
        if step != self._previous or found != self._expected:
            return f"ANOTHER STATE than the previous one ({where})"
        return _GOOD

    @contextlib.contextmanager
    def _without_the_last(self) -> Iterator[None]:
        folder = self._workdir / "checkpoints" / str(self._last)
        hidden = folder.rename(self._workdir / "hidden")
        try:
            yield
        finally:
            hidden.rename(folder)

    def _restore(self) -> tuple[int, Any, str]:
        """The step, all that was restored, and what was printed."""
        output = io.StringIO()
        with contextlib.redirect_stdout(output):
            restored = Checkpoints(self._workdir, keep=2).restore(self._state, self._batches)
        if restored is None:
            return -1, None, output.getvalue()
        state, history = restored
        content = [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(state)]
        return int(state.step), (content, history, self._batches.get_state()), output.getvalue()


def resumable(bench: Bench) -> tuple[TrainState, TrainingBatches]:
    """The state and the batches of the run before it resumes."""
    config = json.loads((bench.undisturbed / "config.json").read_text(encoding="utf-8"))
    data = config["data"]
    recordings = read_recordings(bench.data, "train")
    model = build_model(config, recordings.channels, len(recordings.sessions))
    plan = BatchPlan(
        recordings.bins,
        recordings.session_ids,
        batch_size=data["batch_size"],
        buckets=data["buckets"],
        seed=config["training"]["seed"],
        multiple=model.multiple,
        sessions_per_batch=data["sessions_per_batch"],
    )
    optimizer = plan_stages(config, model.params)[0].optimizer
    state = create_state(model.params, optimizer, data_mesh(), ema=True)
    return state, TrainingBatches(recordings, plan)
