"""Writes simulated recordings in the HDF5 layout of T15; a file appears only when complete."""

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import islice
from pathlib import Path

import h5py
import numpy as np
from jaxtyping import Int32

from modessm_jax.runtime.files import PARTIAL, replacing, write_text
from modessm_jax.simulate.calendar import LABEL_WIDTH, SPLITS, Plan
from modessm_jax.simulate.trials import SimulatedTrial, simulate

TRUTH = "truth.json"  # session -> block -> speaking mode, to score inferred modes against


def write_dataset(
    root: Path, plan: Plan, *, overwrite: bool, report: Callable[[str], None]
) -> Counter[str]:
    """Simulates a data set under `root` and returns the bins of each split.

    Every file appears under its name only when complete, the file of the true modes last. `report`
    is called with a line per session: trials done, their rate and the time left.

    Raises:
        ValueError: `root` is not empty and `overwrite` is false, or it has files that no simulation
            wrote; or the plan cannot be simulated.
    """
    _clear(root, overwrite)
    root.mkdir(parents=True, exist_ok=True)
    started, done = time.monotonic(), 0
    bins: Counter[str] = Counter()
    modes: dict[str, dict[int, str]] = {}
    recorded = simulate(plan)
    for session in plan.sessions:
        (root / session.name).mkdir(exist_ok=True)
        modes[session.name] = {block.number: block.mode.name for block in session.blocks}
        counts: Counter[str] = Counter()
        with ExitStack() as files:
            split_files = {
                split: files.enter_context(_whole_file(root / session.name / f"data_{split}.hdf5"))
                for split in session.splits
            }
            for block in islice(recorded, len(session.blocks)):
                for trial in block:
                    _write_trial(split_files[trial.split], counts[trial.split], trial)
                    counts[trial.split] += 1
                    bins[trial.split] += len(trial.features)
        done += counts.total()
        rate = done / (time.monotonic() - started)
        report(
            f"{session.name}: {done}/{plan.trials} trials, {rate:.0f} trials/s, "
            f"{(plan.trials - done) / rate:.0f} s left"
        )
    write_text(root / TRUTH, json.dumps(modes, indent=1))
    return bins


def _write_trial(file: h5py.File, index: int, trial: SimulatedTrial) -> None:
    group = file.create_group(f"trial_{index:04d}")
    group.create_dataset("input_features", data=trial.features)
    group.attrs["n_time_steps"] = len(trial.features)
    group.attrs["session"] = trial.session
    group.attrs["block_num"] = trial.block
    group.attrs["trial_num"] = trial.number
    if trial.split != "test":
        codes = np.array([ord(character) for character in trial.sentence], np.int32)
        group.create_dataset("seq_class_ids", data=_padded(trial.phonemes))
        group.create_dataset("transcription", data=_padded(codes))
        group.attrs["seq_len"] = len(trial.phonemes)
        group.attrs["sentence_label"] = trial.sentence


def _padded(ids: Int32[np.ndarray, "ids"]) -> Int32[np.ndarray, "width"]:
    return np.pad(ids, (0, LABEL_WIDTH - len(ids)))


@contextmanager
def _whole_file(path: Path) -> Iterator[h5py.File]:
    with replacing(path) as partial, h5py.File(partial, "w") as file:
        yield file


def _clear(root: Path, overwrite: bool) -> None:
    """Removes an earlier simulation, and nothing else, if `overwrite`."""
    if not root.exists():
        return
    present = [path for path in root.rglob("*") if path.is_file()]
    if present and not overwrite:
        raise ValueError(f"{root} is not empty; choose another folder or pass --overwrite")
    ours = {f"data_{split}.hdf5" for split in SPLITS}
    truth = root / TRUTH
    simulated = json.loads(truth.read_text(encoding="utf-8")) if truth.exists() else {}
    for path in present:
        name = path.relative_to(root).as_posix().removesuffix(PARTIAL)
        folder, _, file = name.rpartition("/")
        if name != TRUTH and not (
            file in ours and (folder.startswith("sim.") or folder in simulated)
        ):
            raise ValueError(
                f"{root} holds {name}, which no whole simulation wrote; choose another folder"
            )
    for path in present:
        path.unlink()
