"""Files that are written whole or not at all."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PARTIAL = ".partial"


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
