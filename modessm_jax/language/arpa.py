"""Back-off n-gram models as arrays, and the ARPA text files that KenLM and others read.

A back-off model (S. Katz 1987) stores log p(w | h) for the n-grams it has seen; for any other, log
p(w | h) is the back-off of h (0 where h is not stored) plus log p(w | h without its oldest word).
Numbers are natural logarithms here and decimal logarithms in the file, as the format demands.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

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
