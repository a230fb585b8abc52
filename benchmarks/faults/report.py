"""The table of faults and outcomes."""

import platform
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jax


class Row(NamedTuple):
    """One fault; `passed` is None where it could not be injected on this machine."""

    fault: str
    times: int
    outcome: str
    passed: bool | None

    @property
    def verdict(self) -> str:
        """In one word or two."""
        return {True: "passed", False: "FAILED", None: "not done"}[self.passed]


def table(rows: Sequence[Row]) -> str:
    """The rows as a table in Markdown."""
    lines = ["| fault | times | outcome | verdict |", "| --- | --- | --- | --- |"]
    for row in rows:
        outcome = row.outcome.replace("|", "/").replace("\n", " ")
        lines.append(f"| {row.fault} | {row.times} | {outcome} | {row.verdict} |")
    return "\n".join(lines) + "\n"


def write(out: Path, rows: Sequence[Row]) -> None:
    """Writes the table, with the platform it was made on."""
    where = f"{platform.machine()}, {jax.default_backend()}, jax {jax.__version__}"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(f"{table(rows)}\n{where}, Python {platform.python_version()}\n")


def quoted(text: str, limit: int = 200) -> str:
    """Output as inline code, without folder names, cut to a length that fits a table."""
    text = re.sub(r"/[^\s:]*/", "", " ".join(text.split())).replace("`", "'")
    return f"`{text if len(text) <= limit else text[: limit - 3] + '...'}`"
