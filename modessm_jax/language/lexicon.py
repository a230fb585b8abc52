"""The words that a search can recognise, with all their pronunciations, as a list and as a tree."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from modessm_jax.language.pronunciations import Pronunciations, entries, spelling
from modessm_jax.phonemes import BLANK, CLASSES, SILENCE, phoneme_id, symbols
from modessm_jax.runtime.files import LEXICON, content, replacing

Variants = tuple[tuple[int, ...], ...]

_HEADER = "# lexicon 1"
_GUESSED = "# guessed"
_SIBILANTS = frozenset(("S", "Z", "SH", "ZH", "CH", "JH"))
_VOICELESS = frozenset(("P", "T", "K", "F", "TH"))

# Nodes of the tree, and the word of an arc that ends none.
START = 0  # before the first label
BETWEEN = 1  # after a silence
NO_WORD = -1


@dataclass(frozen=True)
class Lexicon:
    """Phoneme ids 1..39 of every word, without the silence that searches put after it.

    Words with the same pronunciation are all kept, as are all pronunciations of a word; the first
    is the most common.

    Raises:
        ValueError: there are no words, a word has no pronunciation or one that is empty or not of
            phonemes, or a word has white space or capitals in it.
    """

    words: Mapping[str, Variants]
    guessed: frozenset[str] = frozenset()  # words in no dictionary

    def __post_init__(self):
        if not self.words:
            raise ValueError("the lexicon has no words; give it at least one")
        for word, variants in self.words.items():
            _check(word, variants)

    def write(self, path: Path) -> None:
        """Writes text: a line for each pronunciation, "word<tab>phonemes", in order."""
        with replacing(path) as partial, partial.open("w", encoding="utf-8") as file:
            file.write(_HEADER + "\n")
            for word, variants in self.words.items():
                mark = f"\t{_GUESSED}" if word in self.guessed else ""
                file.writelines(f"{word}\t{' '.join(symbols(ids))}{mark}\n" for ids in variants)

    @classmethod
    def read(cls, path: Path) -> "Lexicon":
        """Reads what `write` wrote; lines may be added by hand, in the form of CMUdict too.

        Raises:
            ValueError: the file is missing, not a lexicon, of another version, or empty; or a line
                is malformed, which is named.
        """
        try:
            if (what := content(path)) not in ("", LEXICON):
                raise ValueError(
                    f"{path} is {what}, not a lexicon; make one: "
                    "`python -m experiments.language_model lexicon`"
                )
            header, _, text = path.read_text(encoding="utf-8").partition("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"{path}: cannot be read as a lexicon ({error})") from error
        if header != _HEADER:
            raise ValueError(f"{path} begins with {header!r}, not {_HEADER!r}; build it again")
        words: dict[str, dict[tuple[int, ...], None]] = {}
        guessed = set()
        for number, line, comment in entries("\n" + text):
            word, _, sounds = line.partition("\t")
            if not sounds or "\t" in sounds:
                raise ValueError(f"{path}, line {number}: write word<tab>phonemes, not {line!r}")
            word = spelling(word)
            try:
                ids = tuple(phoneme_id(sound) for sound in sounds.split())
                _check(word, (ids,))
            except ValueError as error:
                raise ValueError(f"{path}, line {number}, {word}: {error}") from error
            words.setdefault(word, {})[ids] = None
            if comment == _GUESSED:
                guessed.add(word)
        if not words:
            raise ValueError(f"{path}: the lexicon has no words; give it at least one")
        return cls({word: tuple(ids) for word, ids in words.items()}, frozenset(guessed))


def _check(word: str, variants: Variants) -> None:
    if not word or word.split() != [word]:
        raise ValueError(f"{word!r} is no word; white space separates words")
    if word != spelling(word) or [line for _, line, _ in entries(word)] != [word]:
        raise ValueError(f"{word!r} has capitals, or is a variant or a comment of CMUdict")
    if not variants or not all(variants):
        raise ValueError(f"a pronunciation of {word!r} is missing")
    if not all(0 < sound < SILENCE for variant in variants for sound in variant):
        raise ValueError(f"phonemes of {word!r} must be 1..{SILENCE - 1}, got {variants}")


def build_lexicon(
    words: Iterable[str],
    additions: Path | None = None,
    guess: Callable[[Sequence[str]], Mapping[str, list[list[str]]]] | None = None,
) -> Lexicon:
    """Looks up all pronunciations of every word, in order; possessives fall back on their nouns.

    Args:
        words: as `text.clean` or a language model spells them, in any case; duplicates count once.
        additions: a file of words for `Pronunciations`, which are added to `words`.
        guess: pronounces other words in no dictionary, such as `pronounce.guess_pronunciations`.

    Returns:
        The lexicon, whose `guessed` holds all words in no dictionary, possessives too.

    Raises:
        ValueError: there are no words, or some have no pronunciation and none was guessed.
        DataError: a line of `additions` is malformed.
    """
    pronunciations = Pronunciations(additions)
    words = dict.fromkeys([*map(str.lower, words), *pronunciations.added])
    found = {word: pronunciations.variants(word) for word in words}
    unknown = [word for word, variants in found.items() if not variants]
    found |= {word: _possessive(word, pronunciations) for word in unknown}
    unknown_nouns = [word for word in unknown if not found[word]]
    if unknown_nouns and guess is not None:
        found |= guess(unknown_nouns)
    lacking = [word for word, variants in found.items() if not variants]
    if lacking:
        raise ValueError(
            f"no pronunciation for {len(lacking)} words: {', '.join(lacking[:8])}"
            f"{', ...' if len(lacking) > 8 else ''}; write them into a file of additions"
        )
    ids = {
        word: tuple(dict.fromkeys(tuple(map(phoneme_id, sounds)) for sounds in variants))
        for word, variants in found.items()
    }
    return Lexicon(ids, frozenset(unknown))


def _possessive(word: str, pronunciations: Pronunciations) -> list[list[str]]:
    """The noun with the ending of English phonology; the dictionary agrees in 94 % of its words."""
    noun = word.removesuffix("'s")
    if noun == word:
        return []
    return [[*sounds, *_ending(sounds[-1])] for sounds in pronunciations.variants(noun)]


def _ending(last: str) -> list[str]:
    if last in _SIBILANTS:
        return ["IH", "Z"]
    return ["S"] if last in _VOICELESS else ["Z"]


class PronunciationTree(NamedTuple):
    """The labels of sentences as a tree; the arcs from node n are `first[n]` to `first[n + 1]`.

    The labels of a sentence are: silence or none; then each word's phonemes, followed by one
    silence, except that the last word may end without. Each word has its own silence arc, which
    leads back to `BETWEEN`. A sentence may end at `START`, at `BETWEEN`, and where a word may.
    """

    first: Int[np.ndarray, "nodes+1"]
    label: Int[np.ndarray, "arcs"]
    target: Int[np.ndarray, "arcs"]  # the node an arc leads to
    word: Int[np.ndarray, "arcs"]  # index of the word that ends with the arc, or NO_WORD
    # Log-probability of the most likely word that may still follow; 0 between words.
    ahead: Float[np.ndarray, "nodes"]

    def words(self, node: int) -> list[int]:
        """The words that may end at a node."""
        words = self.word[self.first[node] : self.first[node + 1]]
        return words[words != NO_WORD].tolist()


def grow(lexicon: Lexicon, score: Callable[[str], float]) -> PronunciationTree:
    """Builds the tree, which takes seconds for a large lexicon.

    Args:
        lexicon: pronunciations without the silence at their ends.
        score: log-probability of a word by itself, for `ahead` (S. Ortmanns et al., "Language-model
            look-ahead for large vocabulary speech recognition", ICSLP 1996).
    """
    children: list[dict[int, int]] = [{}, {}]
    words: defaultdict[int, list[int]] = defaultdict(list)
    ahead = [0.0, 0.0]
    for index, (word, pronunciations) in enumerate(lexicon.words.items()):
        of_word = score(word)
        for pronunciation in dict.fromkeys(pronunciations):
            node = BETWEEN
            for phoneme in pronunciation:
                node = children[node].setdefault(phoneme, len(children))
                if node == len(children):
                    children.append({})
                    ahead.append(of_word)
                ahead[node] = max(ahead[node], of_word)
            words[node].append(index)
    first, arcs = [0], []
    for node, below in enumerate(children):
        if node == START:
            arcs.append((SILENCE, BETWEEN, NO_WORD))
            below = children[BETWEEN]
        arcs += [(phoneme, child, NO_WORD) for phoneme, child in below.items()]
        arcs += [(SILENCE, BETWEEN, word) for word in words[node]]
        first.append(len(arcs))
    label, target, word = np.array(arcs, np.int64).T
    return PronunciationTree(np.array(first), label, target, word, np.array(ahead))


def any_phonemes() -> PronunciationTree:
    """The tree of no words: after every label any of the phonemes, and silence, may follow."""
    labels = np.arange(BLANK + 1, CLASSES)
    same, words = np.full(len(labels), START), np.full(len(labels), NO_WORD)
    return PronunciationTree(np.array([0, len(labels)]), labels, same, words, np.zeros(1))
