"""Text for language models: files of one sentence a line, cleaned, and what is left out of them."""

import re
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from modessm_jax.runtime.files import content
from modessm_jax.text import clean

_SPOKEN = re.compile(r"[a-z'-]+")
_SHOWN = 20
_LINES_BETWEEN_NOTES = 1_000_000


def lines(path: Path) -> Iterator[str]:
    """The lines of a text; prints the progress through a long one.

    Raises:
        ValueError: the file is empty, is not in UTF-8, or is something else than a text.
    """
    if what := content(path):
        raise ValueError(f"{path} is {what}; give a text of one sentence a line")
    start = time.monotonic()
    try:
        with path.open(encoding="utf-8-sig") as file:
            for number, line in enumerate(file, 1):
                yield line
                if number % _LINES_BETWEEN_NOTES == 0:
                    rate = number / (time.monotonic() - start)
                    print(f"{path}: {number:,} lines, {rate:,.0f} a second", flush=True)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no UTF-8 text ({error}); convert it") from error


def sentences(path: Path) -> Iterator[list[str]]:
    """The words of every line, cleaned, without those that have no spelling in the alphabet.

    Nobody can pronounce these (`360`, `5pm`), and the benchmarks' scorer deletes their signs. At
    the end they are counted and named.
    """
    unspoken: Counter[str] = Counter()
    for line in lines(path):
        words = clean(line).split()
        spoken = [word for word in words if _SPOKEN.fullmatch(word)]
        if len(spoken) < len(words):
            unspoken.update(word for word in words if not _SPOKEN.fullmatch(word))
        yield spoken
    if unspoken:
        print(
            f"{path}: {unspoken.total():,} words with digits or letters of other alphabets are "
            f"left out: {named(unspoken)}; write them as they are spoken"
        )


def named(words: Counter[str]) -> str:
    """The most frequent words and their counts."""
    shown = ", ".join(f"{word} ({count:,})" for word, count in words.most_common(_SHOWN))
    return shown + ", ..." * (len(words) > _SHOWN)
