"""Which evaluation sentences a training text holds, so that error rates can be told apart by it."""

from collections import defaultdict
from collections.abc import Iterable, Sequence

from modessm_jax.text import normalize


def seen_sentences(sentences: Sequence[str], text: Iterable[str]) -> list[bool]:
    """Of every sentence, whether its words stand in a row within one line of the text.

    Both sides are normalised first. Short sentences are seen in any large text; count those of five
    words or more to tell a leak from everyday phrases. A sentence without words is not seen.
    """
    wanted = [tuple(normalize(sentence).split()) for sentence in sentences]
    # A sentence is looked for where its first two words are (or its only one).
    by_opening: defaultdict[tuple[str, ...], set[tuple[str, ...]]] = defaultdict(set)
    for words in wanted:
        if words:
            by_opening[words[:2]].add(words)
    found: set[tuple[str, ...]] = set()
    for line in text:
        words = tuple(normalize(line).split())
        for begin in range(len(words)):
            for opening in (words[begin : begin + 1], words[begin : begin + 2]):
                for candidate in by_opening.get(opening, ()):
                    if words[begin : begin + len(candidate)] == candidate:
                        found.add(candidate)
    return [words in found for words in wanted]
