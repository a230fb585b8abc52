"""Submissions to the benchmarks: writing them, and checking them before they are sent.

Brain-to-Text '25 (Kaggle) takes a CSV with the header `id,text` and one line for each test trial,
`id` counting from 0. Brain-to-Text '24 (EvalAI) takes plain text, one sentence a line. Both are in
the order of `list_trials`, and sentences are normalised as for the error rate: lower-case words of
letters, hyphens and apostrophes. The suffix tells which of the two a file is: `.csv` or `.txt`.
"""

import codecs
import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from modessm_jax.data.recordings import Key, describe
from modessm_jax.data.validation import DataError, data_error
from modessm_jax.runtime.files import replacing
from modessm_jax.text import normalize

HEADER = "id,text"
_ID = re.compile(r"[0-9]{1,9}")
_DECODE = "Decode again, with every trial of the split"
_WRITE = "Write the file again with `python -m experiments.submit --out`"


class Problem(NamedTuple):
    """What is wrong with a line of a submission, and what to do about it."""

    line: int
    what: str
    remedy: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.what}. {self.remedy}."


def write_submission(path: str | Path, index: Sequence[Key], texts: Mapping[Key, str]) -> None:
    """Writes the sentence of every trial, normalised, in the order of the index.

    Args:
        path: file to write, `.csv` for Brain-to-Text '25 or `.txt` for '24.
        index: keys of all trials of the split, as `list_trials` gives them.
        texts: exactly one sentence for each of them, in any order.

    Raises:
        DataError: a trial has no sentence or an empty one, or is not in the index; or the suffix
            is another.
    """
    path = Path(path)
    tabular = _tabular(path)
    missing = [key for key in index if key not in texts]
    if missing:
        raise DataError(f"there is no sentence for {_list(missing)}. {_DECODE}.")
    known = set(index)
    extra = [key for key in texts if key not in known]
    if extra:
        problem = f"there are sentences for {_list(extra)}, which the split does not have"
        raise DataError(f"{problem}. Give the split and the data root that were decoded.")
    sentences = [normalize(texts[key]) for key in index]
    empty = [key for key, sentence in zip(index, sentences, strict=True) if not sentence]
    if empty:
        problem = f"the sentence is empty for {_list(empty)}, which a benchmark counts as missing"
        raise DataError(f"{problem}. Decode these with a wider beam, or give their sentences.")
    lines = [f"{row},{sentence}" if tabular else sentence for row, sentence in enumerate(sentences)]
    with replacing(path) as partial:
        partial.write_text("\n".join([HEADER] * tabular + lines) + "\n", "ascii", newline="\n")


def check_submission(
    path: str | Path, index: Sequence[Key], texts: Mapping[Key, str] | None = None
) -> list[Problem]:
    """All problems of a submission, by line; none if it may be sent.

    Plain text has no ids: the order of its lines can be checked only against `texts`.

    Args:
        path: file to check, `.csv` or `.txt`.
        index: keys of all trials of the split, as `list_trials` gives them.
        texts: the sentences the file should hold; None skips the comparison.

    Raises:
        DataError: the file cannot be read, or its suffix is another.
    """
    path = Path(path)
    tabular = _tabular(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        problem = f"cannot be read ({error.strerror})"
        raise data_error(path, "", "", problem, "Give a submission") from error
    if tabular:
        content = content.removeprefix(codecs.BOM_UTF8)
    problems = list(_beyond_ascii(content))
    text = content.decode("utf-8", errors="replace")
    if tabular:
        rows, found = _parse(text)
        problems += [*found, *_check_ids(rows, index)]
    else:
        # Lines may end in either way in use; what follows the last end is no line.
        lines = text.replace("\r\n", "\n").removesuffix("\n").split("\n") if text else []
        rows = [_Row(line, line - 1, sentence) for line, sentence in enumerate(lines, 1)]
        problems += _check_count(rows, index)
    for row in rows:
        problems += _check_sentence(row, index, texts)
    return sorted(problems)


class _Row(NamedTuple):
    line: int
    id: int
    sentence: str


def _tabular(path: Path) -> bool:
    if path.suffix not in (".csv", ".txt"):
        remedy = "Name it .csv for Brain-to-Text '25 or .txt for Brain-to-Text '24"
        raise data_error(path, "", "", f"has the suffix {path.suffix!r}", remedy)
    return path.suffix == ".csv"


def _list(keys: Sequence[Key], most: int = 5) -> str:
    named = ", ".join(describe(key) for key in keys[:most])
    return named if len(keys) <= most else f"{named} and {len(keys) - most} more trials"


def _beyond_ascii(content: bytes) -> Iterator[Problem]:
    for line, row in enumerate(content.split(b"\n"), 1):
        if not row.isascii():
            shown = row.decode("utf-8", errors="replace")
            strange = next(letter for letter in shown if not letter.isascii())
            what = f"holds {strange!r}, which is not ASCII"
            yield Problem(line, what, "Use letters a to z, hyphens and straight apostrophes only")


def _parse(text: str) -> tuple[list[_Row], list[Problem]]:
    """The rows of a CSV, with quotes or without, and what is wrong with their form."""
    rows: list[_Row] = []
    problems: list[Problem] = []
    table = csv.reader(io.StringIO(text, newline=""), strict=True)
    header, begin = "", 1
    try:
        for fields in table:
            content = ",".join(fields)
            if begin == 1:
                header = content
            if len(fields) == 2 and _ID.fullmatch(fields[0]):
                rows.append(_Row(begin, int(fields[0]), fields[1]))
            elif begin > 1 and fields:  # a blank line is no row
                what = f"is {content!r}, not an id of digits, a comma and a sentence"
                problems.append(Problem(begin, what, _WRITE))
            begin = table.line_num + 1
    except csv.Error as error:
        problems.append(Problem(begin, f"is not valid CSV ({error})", _WRITE))
    if header != HEADER:
        problems.append(Problem(1, f"the header is {header!r}", f"Make {HEADER} the first line"))
    return rows, problems


def _check_ids(rows: Sequence[_Row], index: Sequence[Key]) -> Iterator[Problem]:
    """Every id once, in order, and no other."""
    first: dict[int, int] = {}
    previous = -1
    for line, number, _ in rows:
        if number >= len(index):
            what = f"id {number} is none of the {len(index)} trials, 0 to {len(index) - 1}"
            yield Problem(line, what, "Remove the line, or give the data root it belongs to")
            continue
        trial = f"id {number} ({describe(index[number])})"
        if number in first:
            what = f"{trial} is doubled: it stands in line {first[number]} already"
            yield Problem(line, what, "Keep the right one of the two")
            continue
        first[number] = line
        if number < previous:
            what = f"{trial} is out of order: it comes after id {previous}"
            yield Problem(line, what, "Sort the lines by id")
        previous = max(previous, number)
    for number, key in enumerate(index):
        if number not in first:
            # Its line is after the nearest lower id in the file.
            line = next((first[n] + 1 for n in range(number, -1, -1) if n in first), 2)
            what = f"id {number} ({describe(key)}) is missing"
            yield Problem(line, what, _DECODE)


def _check_count(rows: Sequence[_Row], index: Sequence[Key]) -> Iterator[Problem]:
    if len(rows) < len(index):
        missing = f"{len(index) - len(rows)} are missing of {len(index)} trials"
        what = f"the file ends after {len(rows)} sentences: {missing}"
        yield Problem(len(rows) + 1, what, _DECODE)
    if len(rows) > len(index):
        what = f"{len(rows) - len(index)} lines are extra: there are {len(index)} trials"
        yield Problem(len(index) + 1, what, "Remove what is no sentence, such as a header")


def _check_sentence(
    row: _Row, index: Sequence[Key], texts: Mapping[Key, str] | None
) -> Iterator[Problem]:
    trial = f"({describe(index[row.id])})" if row.id < len(index) else "(of no trial)"
    wanted = normalize(row.sentence)
    if not wanted:
        yield Problem(row.line, f"the sentence is empty {trial}", "Give what was decoded")
    elif wanted != row.sentence and row.sentence.isascii():
        what = f"is {row.sentence!r}, which is normalised to {wanted!r}"
        yield Problem(row.line, what, "Write it like that")
    if texts is not None and row.id < len(index):
        decoded = normalize(texts.get(index[row.id], ""))
        if decoded != wanted:
            what = f"is {wanted!r}, but {decoded!r} was decoded {trial}"
            yield Problem(row.line, what, _WRITE)
