"""Text for language models: files of one sentence a line, cleaned, and what is left out of them."""

import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from modessm_jax.runtime.files import content
from modessm_jax.text import describe_left_out, spoken

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
    """The words of every line, by `text.spoken`; prints at the end what was left out."""
    left_out: Counter[str] = Counter()
    for line in lines(path):
        yield spoken(line, left_out)
    if left_out:
        print(f"{path}: {describe_left_out(left_out)}")
