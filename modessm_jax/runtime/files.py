"""Files that are written whole or not at all, and what a file is by its first bytes."""

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PARTIAL = ".partial"

GZIP, ARPA, KENLM = "a gzip archive", "an ARPA n-gram", "a KenLM binary"
LEXICON, HDF5 = "a lexicon", "an HDF5 file"
MATLAB, MATLAB_7_3 = "a MATLAB file", "a MATLAB file of version 7.3"
_CONTENTS = {
    rb"\Z": "empty",
    rb"version https://git-lfs": "a Git LFS pointer, which `git lfs pull` replaces by the file",
    rb"\s*<(!doctype html|html)": "a web page, such as that of a login; download the file again",
    rb"\x1f\x8b": GZIP,
    rb"PK\x03\x04": "a zip archive",
    rb"BZh|\xfd7zXZ": "a compressed archive",
    rb"MATLAB 7\.3": MATLAB_7_3,
    rb"MATLAB 5": MATLAB,
    rb"\x89HDF": HDF5,
    rb"mmap lm http://kheafield\.com": KENLM,
    # Some programs write a few lines before it.
    rb"(.*\n)?\s*\\data\\\s": ARPA,
    rb"# lexicon": LEXICON,
}


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a path to write the new content of a file to; it replaces the file at the end.

    A process that ends in between leaves the old file as it was, and `<name>.partial` beside it; so
    does an error in the block. The folder is made if need be.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + PARTIAL)
    yield partial
    os.replace(partial, path)


def content(path: Path) -> str:
    """What a file is by its first bytes, whatever its name: "a gzip archive"; "" if not known."""
    with path.open("rb") as file:
        begin = file.read(4096)
    known = (what for form, what in _CONTENTS.items() if re.match(form, begin, re.I | re.S))
    return next(known, "")


def write_text(path: Path, text: str) -> None:
    """Replaces a file by a text, in UTF-8."""
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Replaces a file by `value` as readable JSON."""
    write_text(path, json_text(value))


def json_text(value: Any) -> str:
    """Readable JSON of plain values; the same values give the same bytes."""
    return json.dumps(value, indent=2, sort_keys=True) + "\n"
