"""Back-off n-gram models as arrays, and the ARPA text files that KenLM and others read.

A back-off model (S. Katz 1987) stores log p(w | h) for the n-grams it has seen; for any other, log
p(w | h) is the back-off of h (0 where h is not stored) plus log p(w | h without its oldest word).
Numbers are natural logarithms here and decimal logarithms in the file, as the format demands.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import numpy as np
from jaxtyping import Float, Int

from modessm_jax.runtime.files import replacing

START = "<s>"
END = "</s>"
UNKNOWN = "<unk>"
# Log-probability of an unknown word where a model has no unknown word: one in ten million.
MISSING = math.log(1e-7)

# How the format writes the logarithm of zero.
_NEVER = -99.0
_LINES_AT_ONCE = 100_000


@dataclass(frozen=True)
class NGrams:
    """The n-grams of one order; the highest order has back-offs of 0."""

    ids: Int[np.ndarray, "ngrams order"]  # oldest word first
    log_probs: Float[np.ndarray, "ngrams"]
    backoffs: Float[np.ndarray, "ngrams"]


@dataclass(frozen=True)
class BackoffModel:
    """A vocabulary and the n-grams over it, order 1 first."""

    words: tuple[str, ...]
    orders: tuple[NGrams, ...]

    @property
    def sizes(self) -> list[int]:
        """How many n-grams there are of each order."""
        return [len(order.log_probs) for order in self.orders]

    def write(self, path: Path) -> None:
        """Writes an ARPA file, all or nothing; the folder is made if need be."""
        with replacing(path) as partial, partial.open("w", encoding="utf-8") as file:
            file.write("\\data\\\n")
            file.writelines(f"ngram {n}={size}\n" for n, size in enumerate(self.sizes, 1))
            for n, ngrams in enumerate(self.orders, 1):
                file.write(f"\n\\{n}-grams:\n")
                for begin in range(0, len(ngrams.log_probs), _LINES_AT_ONCE):
                    file.writelines(self._lines(n, slice(begin, begin + _LINES_AT_ONCE)))
            file.write("\n\\end\\\n")

    def _lines(self, n: int, rows: slice) -> Iterator[str]:
        ngrams = self.orders[n - 1]
        log_probs = np.maximum(ngrams.log_probs[rows] / math.log(10), _NEVER)
        texts = [" ".join([self.words[i] for i in ids]) for ids in ngrams.ids[rows].tolist()]
        if n == len(self.orders):
            return (f"{p:.6f}\t{t}\n" for p, t in zip(log_probs.tolist(), texts, strict=True))
        backoffs = ngrams.backoffs[rows] / math.log(10)
        together = zip(log_probs.tolist(), texts, backoffs.tolist(), strict=True)
        return (f"{p:.6f}\t{t}\t{b:.6f}\n" for p, t, b in together)


def vocabulary(path: Path) -> list[str]:
    """The words of an ARPA file, without sentence marks and the unknown word.

    Raises:
        ValueError: the file is no ARPA file, or its unigrams are malformed.
    """
    words = []
    with path.open(encoding="utf-8", errors="replace") as file:
        for order, words_of_line in _ngrams(path, file):
            if order > 1:
                break
            words += words_of_line
    return [word for word in words if word not in (START, END, UNKNOWN, UNKNOWN.upper())]


def check(path: Path) -> None:
    """Reads a whole ARPA file to find its mistakes.

    Raises:
        ValueError: the file is malformed; the message names the file, the line and the problem.
    """
    with path.open(encoding="utf-8", errors="replace") as file:
        for _ in _ngrams(path, file):
            pass


def _ngrams(path: Path, file: TextIO) -> Iterator[tuple[int, list[str]]]:
    """The order and the words of every n-gram; checks the whole file on the way."""
    promised: dict[int, int] = {}
    known: set[str] = set()
    order = found = number = 0
    state = "before"
    for number, raw in enumerate(file, 1):
        line = raw.strip()
        try:
            if not line or (state == "before" and line != "\\data\\"):
                continue
            if state == "before":
                state = "sizes"
            elif state == "sizes" and line.startswith("ngram "):
                n, size = line.removeprefix("ngram ").split("=")
                promised[int(n)] = int(size)
            elif line.startswith("\\"):
                if order and found != promised[order]:
                    raise ValueError(f"{found} {order}-grams where {promised[order]} are promised")
                if line == "\\end\\":
                    if order != max(promised, default=-1):
                        raise ValueError(f"the {order + 1}-grams are missing")
                    return
                if line != f"\\{order + 1}-grams:" or order + 1 not in promised:
                    raise ValueError(f"{line} comes unexpectedly")
                order, found, state = order + 1, 0, "ngrams"
            else:
                words = _words(line, order, last=order == max(promised))
                known.update(words if order == 1 else ())
                unknown = next((word for word in words if word not in known), None)
                if unknown is not None:
                    raise ValueError(f"{unknown!r} is not among the 1-grams")
                found += 1
                yield order, words
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: {error}; make the model again") from error
    ending = "\\data\\" if state == "before" else "\\end\\"
    raise ValueError(f"{path}: {number} lines without {ending}; is it a whole ARPA file?")


def _words(line: str, order: int, *, last: bool) -> list[str]:
    fields = line.split()
    if order == 0 or len(fields) not in ((order + 1,) if last else (order + 1, order + 2)):
        raise ValueError(f"a {order}-gram needs a log-probability, {order} words and a back-off")
    if float(fields[0]) > 0:
        raise ValueError(f"log-probability {fields[0]} is above 0")
    for backoff in fields[order + 1 :]:
        float(backoff)
    return fields[1 : order + 1]
