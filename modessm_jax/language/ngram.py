"""N-gram language models of words, queried through KenLM (Heafield 2011), in natural logarithms."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modessm_jax.language import arpa

# KenLM's; equal if the model cannot tell the two histories apart.
State = Any

# Decimal logarithms of p(unknown word) where a model has no unknown word: KenLM's and ours.
_KENLM_MISSING = -100.0
_MISSING = arpa.MISSING / math.log(10)


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
    """A model in ARPA or KenLM's binary format. All scores are natural logarithms.

    A word that the model lacks scores as the model's unknown word; if there is none, as one in ten
    million, times the back-offs of its history.
    """

    def __init__(self, path: str | Path):
        """Loads a model.

        Raises:
            ValueError: there is no such file, or it is malformed; for an ARPA file the message
                names the line.
            ImportError: KenLM is not installed.
        """
        self.path = Path(path)
        self._model, self._new_state = _load(self.path)
        self.order: int = self._model.order
        self._floor = 0.0
        _, lone = self._extend(self._state(start=False), arpa.UNKNOWN)
        if lone <= _KENLM_MISSING:
            self._floor = _MISSING - lone

    def __contains__(self, word: str) -> bool:
        """Whether the model has a word."""
        return word in self._model

    def start(self) -> State:
        """The state before the first word of a sentence; states compare and hash by content."""
        return self._state(start=True)

    def extend(self, state: State, word: str) -> tuple[State, float]:
        """The state after one more word, and log p(word | the words before)."""
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


def _load(path: Path) -> tuple[Any, Any]:
    """KenLM's model of a file, and its class of states."""
    try:
        import kenlm
    except ImportError as error:
        raise ImportError("n-grams need KenLM: pip install 'modessm_jax[words]'") from error
    if not path.is_file():
        raise ValueError(f"{path}: no such file; give an ARPA file or a KenLM binary")
    config = kenlm.Config()
    config.show_progress = False
    config.arpa_complain = kenlm.ARPALoadComplain.NONE
    try:
        return kenlm.Model(str(path), config), kenlm.State
    except OSError as error:
        # KenLM's message names a byte; `check` names the line.
        arpa.check(path)
        raise ValueError(f"{path}: KenLM cannot read it: {error}") from error
