"""Files of n-best lists and of sentences, as JSON lines.

Every line is one trial, named by `session`, `block_num` and `trial_num`. An n-best list has
`candidates`, best first, each with `text` and the scores `acoustic`, `lm` and `total` in nats. A
sentence has a `text`.
"""

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import pairwise
from math import isfinite
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, cast

from absl import logging

from modessm_jax.data.recordings import Key, describe, unscored
from modessm_jax.data.validation import DataError, data_error
from modessm_jax.runtime.files import replacing

_KEY = ("session", "block_num", "trial_num")
_SCORES = ("acoustic", "lm", "total")
_REMEDY = "Write the file again with the command that made it"

T = TypeVar("T")


@dataclass(frozen=True)
class Candidate:
    """One sentence and its scores in nats: acoustic, of the language model, and the total."""

    text: str
    acoustic: float
    lm: float
    total: float


@dataclass(frozen=True)
class Utterance:
    """The candidates of one trial, best first; none if the search found no sentence."""

    session: str
    block_num: int
    trial_num: int
    candidates: tuple[Candidate, ...]

    @property
    def key(self) -> Key:
        """The session, block and number that identify the trial."""
        return self.session, self.block_num, self.trial_num

    @property
    def text(self) -> str:
        """The best sentence; empty if there is none."""
        return self.candidates[0].text if self.candidates else ""


def write_nbest(path: str | Path, utterances: Iterable[Utterance]) -> None:
    """Writes one line for each trial, all or nothing; the folder is made if need be.

    Raises:
        DataError: a trial occurs twice, a score is not finite, or candidates are not best first.
    """
    _write(Path(path), (asdict(utterance) for utterance in utterances), _Line.candidates)


def read_nbest(path: str | Path) -> list[Utterance]:
    """The n-best lists of a file, in its order.

    Raises:
        DataError: a line is malformed or its trial occurs before; the message names the line.
    """
    found = _read(Path(path), _Line.candidates)
    return [Utterance(*key, candidates) for key, candidates in found.items()]


def scorable(utterances: Collection[Utterance], index: Mapping[Key, str | None]) -> list[Utterance]:
    """Those whose sentence the index holds; if it withholds a few, they are counted and named.

    Trials that are not in the index at all stay.
    """
    withheld = [one.key for one in utterances if index.get(one.key, "") is None]
    if 0 < len(withheld) < len(utterances):
        logging.warning(unscored(withheld, len(utterances)))
    return [one for one in utterances if one.key not in withheld]


def write_texts(path: str | Path, texts: Mapping[Key, str]) -> None:
    """Writes one sentence for each trial, all or nothing; the folder is made if need be."""
    lines = ({**dict(zip(_KEY, key, strict=True)), "text": text} for key, text in texts.items())
    _write(Path(path), lines, _Line.text)


def read_texts(path: str | Path) -> dict[Key, str]:
    """The sentence of every trial in a file of sentences, or the best one of each n-best list.

    Raises:
        DataError: a line is malformed or its trial occurs before; the message names the line.
    """
    return _read(Path(path), _Line.text)


class _Line(NamedTuple):
    """One line of a file, read or about to be written."""

    path: Path
    number: int
    fields: dict[str, Any]

    def error(self, field: str, problem: str) -> DataError:
        return data_error(self.path, f"line {self.number}", field, problem, _REMEDY)

    def key(self) -> Key:
        session, block, trial = (self.fields.get(name) for name in _KEY)
        if not isinstance(session, str):
            raise self.error("session", f"is {session!r}, not text")
        for name, value in zip(_KEY[1:], (block, trial), strict=True):
            if type(value) is not int:  # which JSON's true is not
                raise self.error(name, f"is {value!r}, not a whole number")
        return cast(Key, (session, block, trial))

    def candidates(self) -> tuple[Candidate, ...]:
        listed = self.fields.get("candidates")
        if not isinstance(listed, list | tuple):
            raise self.error("candidates", f"is {listed!r}, not a list")
        found = tuple(self.candidate(rank, given) for rank, given in enumerate(listed))
        for rank, (one, after) in enumerate(pairwise(found), 1):
            if after.total > one.total:
                problem = f"is {after.total}, above that of the one before: not best first"
                raise self.error(f"candidates[{rank}].total", problem)
        return found

    def candidate(self, rank: int, given: Any) -> Candidate:
        place = f"candidates[{rank}]"
        if not isinstance(given, dict) or not isinstance(given.get("text"), str):
            raise self.error(place, f"is {given!r}, without a text")
        for name in _SCORES:
            score = given.get(name)
            # JSON's true would pass as a number, and NaN as a float.
            if type(score) is bool or not isinstance(score, int | float) or not isfinite(score):
                raise self.error(f"{place}.{name}", f"is {score!r}, not a finite number")
        return Candidate(given["text"], *(float(given[name]) for name in _SCORES))

    def text(self) -> str:
        if "candidates" in self.fields:
            best = self.candidates()[:1]
            return best[0].text if best else ""
        sentence = self.fields.get("text")
        if not isinstance(sentence, str):
            raise self.error("text", f"is {sentence!r}, not text")
        return sentence


def _write(path: Path, lines: Iterable[dict[str, Any]], check: Callable[[_Line], object]) -> None:
    with replacing(path) as partial, partial.open("w", encoding="utf-8") as file:
        for line in _different(_Line(path, *numbered) for numbered in enumerate(lines, 1)):
            check(line)
            file.write(json.dumps(line.fields) + "\n")


def _read(path: Path, read: Callable[[_Line], T]) -> dict[Key, T]:
    found = {line.key(): read(line) for line in _different(_parsed(path))}
    if not found:
        raise data_error(path, "", "", "holds no trials", _REMEDY)
    return found


def _parsed(path: Path) -> Iterator[_Line]:
    try:
        with path.open(encoding="utf-8") as file:
            rows = file.readlines()
    except (OSError, UnicodeDecodeError) as error:
        remedy = "Give a file of JSON lines, as experiments.decode writes it"
        raise data_error(path, "", "", f"cannot be read ({error})", remedy) from error
    for number, row in enumerate(rows, 1):
        try:
            fields = json.loads(row)
        except json.JSONDecodeError as error:
            place = f"line {number}"
            raise data_error(path, place, "", f"is not JSON ({error.msg})", _REMEDY) from error
        if not isinstance(fields, dict):
            raise data_error(path, f"line {number}", "", "is not a JSON object", _REMEDY)
        yield _Line(path, number, fields)


def _different(lines: Iterable[_Line]) -> Iterator[_Line]:
    """The lines; an error if a trial occurs a second time."""
    seen: dict[Key, int] = {}
    for line in lines:
        key = line.key()
        first = seen.setdefault(key, line.number)
        if first != line.number:
            problem = f"is {describe(key)}, and so is line {first}"
            remedy = "Keep one line for each trial"
            raise data_error(line.path, f"line {line.number}", "", problem, remedy)
        yield line
