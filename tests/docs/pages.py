"""README and documentation, taken apart: their commands, Python blocks and links."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
PAGES = (
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted((ROOT / "docs").glob("*.md")),
)
LANGUAGES = {"bash", "python", "text"}

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_SPAN = re.compile(r"`([^`\n]+)`")
_COMMAND = re.compile(r"([A-Z_]+=\S+ )*(python|make|pip|pytest) ")


class Block(NamedTuple):
    """A fenced block of a page."""

    page: Path
    language: str
    text: str


class Command(NamedTuple):
    """A command line of a page, in words; what redirects its output is left out."""

    page: str
    words: list[str]

    def __str__(self) -> str:
        return f"{self.page}: {shlex.join(self.words)}"


def blocks() -> list[Block]:
    """Every fenced block, page by page."""
    return [
        Block(page, match[1], match[2])
        for page in PAGES
        for match in _FENCE.finditer(page.read_text(encoding="utf-8"))
    ]


def prose(page: Path) -> str:
    """The text of a page without its fenced blocks."""
    return _FENCE.sub("", page.read_text(encoding="utf-8"))


def spans(page: Path) -> list[str]:
    """The code within the prose of a page."""
    return _SPAN.findall(prose(page))


def commands() -> list[Command]:
    """Every command line: those of bash blocks, and those within the prose."""
    return list(_commands())


def _commands() -> Iterator[Command]:
    for block in blocks():
        if block.language == "bash":
            for line in block.text.replace("\\\n", " ").splitlines():
                if words := shlex.split(line.partition(" > ")[0], comments=True):
                    yield Command(block.page.name, words)
    for page in PAGES:
        for span in spans(page):
            if _COMMAND.match(span):
                yield Command(page.name, shlex.split(span))
