"""N-gram language models of words, queried through KenLM (Heafield 2011), in natural logarithms.

Words are lower-case in lexicons and sentences. A model may be written otherwise: a word that it
lacks is looked up in lower case, with a capital, and in capitals.
"""

import gzip
import math
import re
import shutil
import tempfile
import weakref
import zlib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

from absl import logging

from modessm_jax.language import arpa
from modessm_jax.runtime.files import ARPA, GZIP, content
from modessm_jax.text import percent

# KenLM's; equal if the model cannot tell the two histories apart.
State = Any

# Decimal logarithms of p(unknown word) where a model has no unknown word: KenLM's and ours.
_KENLM_MISSING = -100.0
_MISSING = arpa.MISSING / math.log(10)

# Shares of words that a model lacks: what is worth a warning, and what can only be a mistake.
_MANY, _NEARLY_ALL = 0.05, 0.95
_SHOWN = 8

# A unigram as KenLM reads it, its word caught; the back-off may be missing.
_UNIGRAM = re.compile(
    rb"[^\0\t\n\r ]+\t[\0\t\n\r ]*([^\0\t\n\r ]+)(?:\t[\0\t\n\r ]*[^\0\t\n\r ]+)?\r?\n"
)
_COUNT = re.compile(rb"\s*ngram\s+\d+=\s*([+-]?\d+)")
_LEAST = 4  # bytes of an n-gram: a digit, a tab, a letter, the end of the line
# What KenLM says of a file, with the rule that is broken and the byte where it stopped.
_REFUSED = re.compile(
    r"(?:Cannot read model '.*?' \()?(?:.*? threw [\w:]+(?: because `.*?')?\. )?"
    r"(?P<rule>.*?)\.?(?: Error)?(?: in the \d-gram at byte \d+)?(?: Byte: (?P<byte>\d+))?\)?",
    re.DOTALL,
)


@dataclass(frozen=True)
class Perplexity:
    """Perplexity per word, where the end of a sentence counts as a word.

    `all_words` scores unknown words as `NGram` does. `known_words` leaves them out, but keeps them
    as context, as SRILM and KenLM do.
    """

    all_words: float
    known_words: float
    sentences: int
    words: int
    unknown: int


class NGram:
    """A model in ARPA (also gzipped) or KenLM's binary format. All scores are natural logarithms.

    A word that the model lacks scores as the model's unknown word; if there is none, as one in ten
    million, times the back-offs of its history.

    Attributes:
        path: of the model.
        file: what KenLM reads; not the path if that is gzipped.
        order: words of the longest n-grams.
    """

    def __init__(self, path: str | Path):
        """Loads a model.

        Raises:
            ValueError: there is no such file, or KenLM refuses it; the message names the rule and,
                for an ARPA file, the line.
            ImportError: KenLM is not installed.
        """
        self.path = self.file = Path(path)
        if not self.path.is_file():
            raise ValueError(f"{path}: no such file; give an ARPA file or a KenLM binary")
        if content(self.path) == GZIP:
            folder = tempfile.mkdtemp(prefix="ngram_")
            weakref.finalize(self, shutil.rmtree, folder)
            self.file = _unpack(self.path, Path(folder))
        self._model, self._new_state = self._load()
        self._spellings: dict[str, str] = {}
        self.order: int = self._model.order
        self._floor = 0.0
        _, lone = self._extend(self._state(start=False), arpa.UNKNOWN)
        if lone <= _KENLM_MISSING:
            self._floor = _MISSING - lone

    def __contains__(self, word: str) -> bool:
        """Whether the model has a word, in any of the spellings that `spelling` tries."""
        return self.spelling(word) in self._model

    def spelling(self, word: str) -> str:
        """A word as the model spells it; as it is if the model lacks it."""
        if word not in self._spellings:
            forms = (word, word.lower(), word.capitalize(), word.upper())
            self._spellings[word] = next((each for each in forms if each in self._model), word)
        return self._spellings[word]

    def words(self) -> list[str]:
        """The words of an ARPA file in its order, without sentence marks and the unknown word.

        Raises:
            ValueError: the file is a KenLM binary, which does not list them, or not in UTF-8.
        """
        if content(self.file) != ARPA:
            raise ValueError(f"{self.path} does not list its words; give the ARPA file it is from")
        with self.file.open("rb") as file:
            section = takewhile(lambda line: not line.startswith(b"\\2-grams:"), file)
            unigrams = b"".join(section).partition(b"\\1-grams:")[2]
        try:
            words = [word.decode() for word in _UNIGRAM.findall(unigrams)]
        except UnicodeDecodeError as error:
            raise ValueError(f"{self.path} is not in UTF-8 ({error}); convert it") from error
        marks = (arpa.START, arpa.END, arpa.UNKNOWN, arpa.UNKNOWN.upper())
        return [word for word in dict.fromkeys(words) if word not in marks]

    def lacking(self, words: Collection[str]) -> list[str]:
        """Those of the words to be scored that the model lacks; warns if they are many.

        Raises:
            ValueError: nearly all are lacking, so that the model would tell nothing.
        """
        lacking = [word for word in words if word not in self]
        share = len(lacking) / max(len(words), 1)
        if share > _MANY:
            shown = ", ".join(lacking[:_SHOWN]) + ", ..." * (len(lacking) > _SHOWN)
            said = f"{self.path} lacks {len(lacking):,} of {len(words):,} words: {shown}"
            if share > _NEARLY_ALL:
                raise ValueError(
                    f"{said}; give an n-gram of such words, or build the lexicon from this one "
                    "(`python -m experiments.language_model lexicon --words`)"
                )
            logging.warning("%s are unknown to the n-gram: %s", percent(share), said)
        return lacking

    def start(self) -> State:
        """The state before the first word of a sentence; states compare and hash by content."""
        return self._state(start=True)

    def extend(self, state: State, word: str) -> tuple[State, float]:
        """The state after one more word, and log p(word | the words before)."""
        word = self.spelling(word)
        after, score = self._extend(state, word)
        if self._floor and word not in self._model:
            score += self._floor
        return after, score * math.log(10)

    def alone(self, word: str) -> float:
        """log p(word) without any history: the unigram."""
        return self.extend(self._state(start=False), word)[1]

    def end(self, state: State) -> float:
        """log p(the sentence ends here | the words before)."""
        return self.extend(state, arpa.END)[1]

    def score(self, words: Sequence[str]) -> float:
        """log p of a whole sentence, its end included."""
        return sum(self.word_scores(words))

    def word_scores(self, words: Sequence[str]) -> list[float]:
        """log p of each word of a sentence given those before, and of its end."""
        state = self.start()
        scores = []
        for word in words:
            state, score = self.extend(state, word)
            scores.append(score)
        return [*scores, self.end(state)]

    def perplexity(self, sentences: Iterable[Sequence[str]]) -> Perplexity:
        """Perplexity of sentences, given as words.

        Raises:
            ValueError: there are no sentences.
        """
        total = unknown_total = 0.0
        count = words = unknown = 0
        for sentence in sentences:
            scores = self.word_scores(sentence)
            count += 1
            words += len(sentence)
            total += sum(scores)
            for word, score in zip(sentence, scores, strict=False):
                if word not in self:
                    unknown += 1
                    unknown_total += score
        if not count:
            raise ValueError("perplexity needs at least one sentence")
        return Perplexity(
            all_words=math.exp(-total / (words + count)),
            known_words=math.exp(-(total - unknown_total) / (words + count - unknown)),
            sentences=count,
            words=words,
            unknown=unknown,
        )

    def _state(self, *, start: bool) -> State:
        state = self._new_state()
        (self._model.BeginSentenceWrite if start else self._model.NullContextWrite)(state)
        return state

    def _extend(self, state: State, word: str) -> tuple[State, float]:
        after = self._new_state()
        return after, self._model.BaseScore(state, word, after)

    def _load(self) -> tuple[Any, Any]:
        """KenLM's model of the file, and its class of states."""
        try:
            import kenlm
        except ImportError as error:
            raise ImportError("n-grams need KenLM: pip install 'modessm_jax[words]'") from error
        self._check_counts()
        config = kenlm.Config()
        config.show_progress = False
        config.arpa_complain = kenlm.ARPALoadComplain.NONE
        try:
            return kenlm.Model(str(self.file), config), kenlm.State
        except OSError as error:
            raise ValueError(self._explain(str(error))) from error
        except UnicodeDecodeError as error:  # a message that holds part of a letter
            raise ValueError(self._explain(error.object.decode(errors="replace"))) from error

    def _check_counts(self) -> None:
        """Refuses promises that no such file can keep; KenLM would take the memory, or crash."""
        if content(self.file) != ARPA:
            return
        most = self.file.stat().st_size // _LEAST
        with self.file.open("rb") as file:
            section = takewhile(lambda line: not line.startswith(b"\\1-grams:"), file)
            for number, line in enumerate(section, 1):
                found = _COUNT.match(line)
                if found and not 0 <= int(found[1]) <= most:
                    raise ValueError(
                        f"{self.path}, line {number}: {int(found[1]):,} n-grams are promised, but "
                        f"the file can hold {most:,} at most; make the model again"
                    )

    def _explain(self, refused: str) -> str:
        """What KenLM says of the file, with the line in place of the byte."""
        found, what = _REFUSED.fullmatch(refused), content(self.file)
        rule, byte = (found["rule"], found["byte"]) if found else (refused, None)
        if what != ARPA:
            what = f"it is {what}" if what else "it is neither an ARPA file nor a KenLM binary"
            return f"{self.path}: KenLM cannot read it: {what} ({rule})"
        text = self.file.read_bytes()
        if byte is None:  # a NUL ends KenLM's message early
            rule, stop = f"{rule} (there is a NUL)", text.find(b"\0")
        else:
            # It stops before what is no number, and else after it, the end of a line included.
            stop = max(int(byte) - (not rule.startswith("Could not parse")), 0)
        line = 1 + text.count(b"\n", 0, stop)
        return f"{self.path}, line {line}: {rule}; correct the line, or make the model again"


class NGramStates:
    """The n-gram's states as numbers, its scores cached; without an n-gram they are all 0."""

    def __init__(self, lm: NGram | None, words: Sequence[str]):
        self._lm, self._words = lm, words
        self._states = [None if lm is None else lm.start()]
        self._numbers = {self._states[0]: 0}
        self._extended: dict[tuple[int, int], tuple[int, float]] = {}
        self._ends: dict[int, float] = {}

    def extend(self, state: int, word: int) -> tuple[int, float]:
        """See `NGram`."""
        if self._lm is None:
            return state, 0.0
        key = state, word
        if key not in self._extended:
            after, score = self._lm.extend(self._states[state], self._words[word])
            number = self._numbers.setdefault(after, len(self._states))
            if number == len(self._states):
                self._states.append(after)
            self._extended[key] = number, score
        return self._extended[key]

    def end(self, state: int) -> float:
        """See `NGram`."""
        if self._lm is None:
            return 0.0
        if state not in self._ends:
            self._ends[state] = self._lm.end(self._states[state])
        return self._ends[state]


def _unpack(path: Path, folder: Path) -> Path:
    """Unpacks a gzipped file into a folder."""
    file = folder / path.stem
    try:
        with gzip.open(path) as packed, file.open("wb") as plain:
            shutil.copyfileobj(packed, plain)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path} cannot be unpacked ({error}); copy it again") from error
    return file
