"""Checkpoints as folders: their names, checksums and contents.

Each is a folder named for its step; whatever ends the process, it is complete or not there.

<step>           complete
<step>.partial   being written
<step>.former    about to be replaced, or replaced, by a new one of the same step
<step>.removed   being removed
<step>.damaged   set aside for a person to look at; no program removes it

Orbax does not checksum the bytes of arrays: a flipped bit is loaded as another number. So the last
file to be written is `manifest.json`, with the size and sha256 of all the others, and a sha256 of
its own content.
"""

import contextlib
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
from orbax.checkpoint import v1 as ocp

from modessm_jax.runs.history import History
from modessm_jax.runs.state import TrainState
from modessm_jax.runtime.files import json_text, write_json

MANIFEST = "manifest.json"


class DamagedError(ValueError):
    """A folder is not as it was written; the message names the file and what is wrong."""


class CheckpointError(ValueError):
    """A checkpoint cannot be read or saved, or belongs to another model, config or format."""


def steps_in(directory: Path) -> list[int]:
    """The steps of the complete checkpoints in a directory, in order."""
    return sorted(int(folder.name) for folder in directory.glob("*") if folder.name.isdigit())


def damaged_in(directory: Path) -> list[Path]:
    """The folders that were set aside."""
    return sorted(directory.glob("*.damaged*"))


def publish(partial: Path) -> None:
    """Renames a complete `<step>.partial` to `<step>`, and removes one of that name."""
    final, former = partial.with_suffix(""), partial.with_suffix(".former")
    if final.exists():
        final.rename(former)
    partial.rename(final)
    sync_names(final.parent)
    if former.exists():
        shutil.rmtree(former, ignore_errors=True)


def remove(folder: Path) -> None:
    """Removes a folder; if the process ends meanwhile, `tidy` removes the rest."""
    removed = folder.rename(folder.with_name(f"{folder.name}.removed"))
    # Or a power cut could leave the old name with half of its files.
    sync_names(folder.parent)
    shutil.rmtree(removed)


def set_aside(folder: Path) -> Path:
    """Renames a damaged folder; under the new name it is neither read nor removed."""
    aside, tries = folder.with_name(f"{folder.name}.damaged"), 1
    while aside.exists():
        tries += 1
        aside = folder.with_name(f"{folder.name}.damaged-{tries}")
    return folder.rename(aside)


def tidy(directory: Path) -> None:
    """Completes or undoes what a killed process left unfinished."""
    for former in directory.glob("*.former"):
        # A process killed between the two renames of `publish` leaves no other one of this step.
        final = former.with_suffix("")
        if final.exists():
            shutil.rmtree(former)
        else:
            former.rename(final)
    for removed in directory.glob("*.removed"):
        shutil.rmtree(removed)
    for partial in directory.glob("*.partial*"):
        # After a failed save Orbax's threads may still be writing: the next `tidy` gets the rest.
        shutil.rmtree(partial, ignore_errors=True)
        print(f"{partial} was never completed; removed", flush=True)


def sync_names(directory: Path) -> None:
    """Flushes the names in a directory to the disk, so that a rename survives a power cut."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def seal(folder: Path, facts: dict[str, Any]) -> None:
    """Writes the manifest of all files in `folder`, and flushes everything to the disk.

    Args:
      folder: complete but for its manifest.
      facts: plain JSON values to keep in the manifest; `verify` returns them.
    """
    files = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            os.fsync(file.fileno())
            size = file.tell()
        files[path.relative_to(folder).as_posix()] = {"bytes": size, "sha256": digest}
    content = {"facts": facts, "files": files}
    write_json(folder / MANIFEST, {"content": content, "sha256": _digest(content)})
    with (folder / MANIFEST).open("rb") as file:
        os.fsync(file.fileno())
    for directory in (folder, *(path for path in folder.rglob("*") if path.is_dir())):
        sync_names(directory)


def verify(folder: Path) -> dict[str, Any]:
    """Compares every file with the manifest, and returns the facts given to `seal`.

    Raises:
      DamagedError: a file or the manifest is missing or has changed.
      OSError: the disk cannot be read; the files may be as they were.
    """
    content = read_manifest(folder)
    for name, expected in content["files"].items():
        path = folder / name
        try:
            size = path.stat().st_size
            if size != expected["bytes"]:
                raise DamagedError(f"{name} has {size} bytes, not {expected['bytes']}")
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        except FileNotFoundError as error:
            raise DamagedError(f"{name} is missing") from error
        if digest != expected["sha256"]:
            raise DamagedError(f"{name} has other content than was written (its sha256 differs)")
    return content["facts"]


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest: `facts` as given to `seal`, and `files`, {name: {"bytes", "sha256"}}.

    Raises:
      DamagedError: the folder or its manifest is missing, or the manifest has changed.
      OSError: the disk cannot be read.
    """
    try:
        text = (folder / MANIFEST).read_bytes().decode()
        manifest = json.loads(text)
        content, digest = manifest["content"], manifest["sha256"]
    except FileNotFoundError as error:
        if not folder.exists():
            raise DamagedError("it is missing") from error
        raise DamagedError(f"{MANIFEST}, which is written last, is missing") from error
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedError(f"{MANIFEST} is damaged ({error})") from error
    if digest != _digest(content):
        raise DamagedError(f"{MANIFEST} is damaged (its sha256 differs)")
    # One content can be written in several ways in JSON; only the one that was written is sound.
    if text != json_text(manifest):
        raise DamagedError(f"{MANIFEST} is damaged (same content, but not the bytes written)")
    return content


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def contents_of(state: TrainState, history: History, position: Any = None) -> dict[str, Any]:
    """What a checkpoint holds, by the names of its parts on disk.

    Args:
      position: the state of the data iterator, plain JSON values.
    """
    parts = {
        # As strings: in a tree of numbers every number of the history would be an array on disk.
        # The counts are here because Orbax warns of a part without arrays at every save.
        "history": {
            "json": history.to_json(),
            "shapes": json.dumps(_shapes(state.params)),
            # Here, not as an iterator of Orbax's, which has a file for each process: it is the same
            # in all, and the run may be resumed with another number of processes.
            "batches": json.dumps(position),
            "step": state.step,
            "begun": state.begun,
        },
        "weights": state.params,
        "optimizer": state.opt_state,
    }
    return parts if state.ema is None else {**parts, "ema": state.ema}


def load(folder: Path, wanted: dict[str, Any]) -> dict[str, Any]:
    """Reads parts of a checkpoint that has been verified.

    Args:
      wanted: for each part, its structure, with arrays, or `jax.ShapeDtypeStruct`, of the shapes,
        types and sharding to load.

    Raises:
      CheckpointError: a part is missing, or has another structure.
    """
    missing = sorted(name for name in wanted if not (folder / name).is_dir())
    if missing:
        raise _unreadable(folder, f"it has no {', '.join(missing)}")
    loaded = {}
    with _explained(folder):
        # One at a time: where one part fails, Orbax forgets to await the others. The history comes
        # first, because its shapes show a difference that Orbax's message would not.
        for name in ["history", *(wanted.keys() - {"history"})]:
            loaded |= ocp.load_checkpointables(str(folder), {name: wanted[name]})
            if name == "history":
                _check_shapes(folder, json.loads(loaded[name]["shapes"]), wanted["weights"])
    return loaded


def saved_structure(folder: Path) -> dict[str, Any]:
    """The parts of a checkpoint that has been verified, with shapes and types in place of arrays.

    Raises:
      CheckpointError: they cannot be read.
    """
    with _explained(folder):
        return ocp.checkpointables_metadata(str(folder)).metadata


@contextlib.contextmanager
def _explained(folder: Path) -> Iterator[None]:
    """Turns what Orbax raises into a CheckpointError that names the folder and the cause."""
    try:
        yield
    except CheckpointError:
        raise
    except (KeyError, TypeError, ValueError, OSError) as error:
        # Orbax's error names only the handler that failed; the cause is at the end of the chain.
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        raise _unreadable(folder, str(cause)) from error


def _shapes(params: Any) -> dict[str, str]:
    leaves = jax.tree_util.tree_leaves_with_path(params)
    # Orbax returns the number of a layer as a string.
    names = [re.sub(r"\['(\d+)'\]", r"[\1]", jax.tree_util.keystr(path)) for path, _ in leaves]
    shapes = [f"{leaf.dtype}{list(leaf.shape)}" for _, leaf in leaves]
    return dict(zip(names, shapes, strict=True))


def _check_shapes(folder: Path, saved: dict[str, str], params: Any) -> None:
    present = _shapes(params)
    differing = [
        f"{name} is {saved.get(name, 'absent')} there, {present.get(name, 'absent')} here"
        for name in sorted(saved.keys() | present.keys())
        if saved.get(name) != present.get(name)
    ]
    if differing:
        raise _unreadable(folder, "; ".join(differing[:5]))


def _unreadable(folder: Path, cause: str) -> CheckpointError:
    return CheckpointError(
        f"{folder}: the checkpoint of step {folder.name} is as it was written, but cannot be read "
        "here, or was written by another model. Go on with the model, the code and the packages "
        f"that wrote it, or choose a new workdir. Cause: {cause}"
    )
