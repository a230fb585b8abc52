"""Telling a folder that is as it was written from one that is not.

Orbax does not checksum the bytes of arrays: a flipped bit is loaded as another number. So every
checkpoint has a `manifest.json`, the last file to be written, with the size and sha256 of all the
others, and a sha256 of its own content.
"""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from modessm_jax.training.writers import json_text, write_json

NAME = "manifest.json"


class DamagedError(ValueError):
    """A folder that is not as it was written; the message names the file and what is wrong."""


def seal(folder: Path, facts: dict[str, Any]) -> None:
    """Writes the manifest of all files in `folder`; all is on the medium when this returns.

    Args:
      folder: complete but for its manifest.
      facts: plain JSON values to go with it; `verify` returns them.
    """
    files = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            os.fsync(file.fileno())
            size = file.tell()
        files[path.relative_to(folder).as_posix()] = {"bytes": size, "sha256": digest}
    content = {"facts": facts, "files": files}
    write_json(folder / NAME, {"content": content, "sha256": _digest(content)})
    with (folder / NAME).open("rb") as file:
        os.fsync(file.fileno())
    for directory in (folder, *(path for path in folder.rglob("*") if path.is_dir())):
        sync_names(directory)


def sync_names(directory: Path) -> None:
    """Puts on the medium which files and folders a directory has: a rename outlives a power cut."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def verify(folder: Path) -> dict[str, Any]:
    """Reads every file that the manifest lists, and returns the facts given to `seal`.

    Raises:
      DamagedError: a file is missing, or other than it was; or the manifest is.
      OSError: the disk does not tell, which says nothing of the files.
    """
    content = read(folder)
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


def read(folder: Path) -> dict[str, Any]:
    """The manifest alone: `facts` as given to `seal`, and `files`, {name: {"bytes", "sha256"}}.

    Raises:
      DamagedError: the folder or its manifest is missing, or the manifest is not as it was.
      OSError: the disk does not tell.
    """
    try:
        text = (folder / NAME).read_bytes().decode()
        manifest = json.loads(text)
        content, digest = manifest["content"], manifest["sha256"]
    except FileNotFoundError as error:
        if not folder.exists():
            raise DamagedError("it is missing") from error
        raise DamagedError(f"{NAME}, which is written last, is missing") from error
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedError(f"{NAME} is damaged ({error})") from error
    if digest != _digest(content):
        raise DamagedError(f"{NAME} is damaged (its sha256 differs)")
    # JSON has several spellings of one content; only the one that was written is sound.
    if text != json_text(manifest):
        raise DamagedError(f"{NAME} is damaged (its content is right, but not as it was spelt)")
    return content


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
