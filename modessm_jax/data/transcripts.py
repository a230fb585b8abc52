"""What was said in the recordings, without reading any features."""

from collections.abc import Iterable
from pathlib import Path

from modessm_jax.data.index import describe, read_index
from modessm_jax.data.validation import data_error
from modessm_jax.text import normalize


def read_transcripts(
    root: str | Path, split: str, sessions: Iterable[str] | None = None
) -> list[str]:
    """The sentences of a split, normalised, in the order of `read_index`.

    Args:
        root: folder of session folders.
        split: "train" or "val"; the sentences of "test" are withheld.
        sessions: names to read; none or empty for all.

    Raises:
        DataError: there are no such data, or a trial has no sentence.
    """
    chosen, sentences = set(sessions or ()), []
    for key, sentence in read_index(root, split).items():
        if sentence is None:
            problem = f"the attribute is missing in {describe(key)}"
            remedy = "Restore the data set as published, or choose a split with sentences"
            raise data_error(Path(root), split, "sentence_label", problem, remedy)
        if not chosen or key[0] in chosen:
            sentences.append(normalize(sentence))
    return sentences


def vocabulary(sentences: Iterable[str]) -> list[str]:
    """The words of normalised sentences, each once, in alphabetical order."""
    return sorted({word for sentence in sentences for word in sentence.split()})
