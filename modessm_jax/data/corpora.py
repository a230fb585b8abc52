"""The corpus that the sentences of each block come from.

T15's publishers give one row per block: `Date` (YYYY-MM-DD), `Post-implant day`, `Block number`,
`Number of sentences`, `Corpus`, `Split`. Sessions are named for their date (`t15.2023.08.11`).
"""

import csv
import io
from datetime import date
from pathlib import Path

from modessm_jax.data.validation import data_error

_COLUMNS = ("Date", "Block number", "Corpus")
_REMEDY = f"Give the data set's copy task description, a CSV with columns {', '.join(_COLUMNS)}"


def read_corpora(table: Path) -> dict[tuple[date, int], str]:
    """The corpus of every (date, block) in the table.

    Raises:
        DataError: the table is missing, lacks a column, or has a malformed or contradictory line.
    """
    try:
        text = table.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise data_error(table, "", "", f"cannot be read ({error})", _REMEDY) from error
    rows = csv.DictReader(io.StringIO(text, newline=""))
    missing = [column for column in _COLUMNS if column not in (rows.fieldnames or ())]
    if missing:
        raise data_error(table, "line 1", ", ".join(missing), "the column is missing", _REMEDY)
    corpora: dict[tuple[date, int], str] = {}
    for row in rows:
        line = f"line {rows.line_num}"
        try:
            day = date.fromisoformat(row["Date"])
        except (TypeError, ValueError) as error:
            problem = f"is {row['Date']!r}, not a date like 2023-08-11"
            raise data_error(table, line, "Date", problem, _REMEDY) from error
        try:
            block = int(row["Block number"])
        except (TypeError, ValueError) as error:
            problem = f"is {row['Block number']!r}, not a whole number"
            raise data_error(table, line, "Block number", problem, _REMEDY) from error
        corpus = (row["Corpus"] or "").strip()
        if not corpus:
            raise data_error(table, line, "Corpus", "is empty", _REMEDY)
        if corpora.setdefault((day, block), corpus) != corpus:
            earlier = f"an earlier line gives {corpora[day, block]!r} for {day} block {block}"
            raise data_error(table, line, "Corpus", f"is {corpus!r}, but {earlier}", _REMEDY)
    return corpora


def corpora_of_session(corpora: dict[tuple[date, int], str], session: str) -> dict[int, str]:
    """The corpus by block of one session; empty if its name does not end with a known date."""
    return {
        block: corpus
        for (day, block), corpus in corpora.items()
        if session.endswith(day.strftime("%Y.%m.%d"))
    }
