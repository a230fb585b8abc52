"""The plan of a data set from a table of labels, such as T15's: its days, blocks and sentences.

A CSV with a row per trial. Columns: `session`, whose name ends with the day (`t15.2023.08.11`);
`split`; `block` and `trial`, whole numbers; `ground_truth_phonemes`, ARPAbet symbols with ` | `
after every word; `ground_truth_text`, the sentence. Other columns are not read.
"""

import csv
import io
import re
from datetime import date
from pathlib import Path

from modessm_jax.phonemes import sentence_ids
from modessm_jax.simulate.calendar import (
    LABEL_WIDTH,
    SPLITS,
    Block,
    Mode,
    Plan,
    Prompt,
    Session,
    Stream,
    alternating_modes,
    generator,
)

_COLUMNS = ("session", "split", "block", "trial", "ground_truth_phonemes", "ground_truth_text")
_DAY = re.compile(r"[\w.-]*?(\d{4})\.(\d\d)\.(\d\d)")

_Blocks = dict[int, dict[int, Prompt]]  # by number, the prompts by number


def read_plan(table: Path, *, electrodes: int, seed: int, tuning_loss: float) -> Plan:
    """The sessions of a table of labels, sorted by day, block and trial.

    Modes alternate from block to block, as in `calendar.drawn`: the table does not say them.

    Raises:
        ValueError: the table lacks a column or has a malformed line or a trial twice, which are
            named; or `tuning_loss` is not a fraction.
        OSError: it cannot be read.
    """
    rows = csv.DictReader(io.StringIO(_text(table), newline=""))
    missing = [column for column in _COLUMNS if column not in (rows.fieldnames or ())]
    if missing:
        raise ValueError(f"{table}, line 1: there is no column {', '.join(missing)}")
    sessions: dict[tuple[date, str], _Blocks] = {}
    for row in rows:
        try:
            day, prompt = _day(row["session"]), _prompt(row)
            blocks = sessions.setdefault((day, row["session"]), {})
            block = blocks.setdefault(_number(row, "block"), {})
            if prompt.number in block:
                raise ValueError("this trial is in the table twice")
        except ValueError as error:
            raise ValueError(f"{table}, line {rows.line_num}: {error}") from error
        block[prompt.number] = prompt
    if not sessions:
        raise ValueError(f"{table} has no trials")
    planned = [
        _session(name, day, blocks, alternating_modes(generator(seed, Stream.MODES, index)))
        for index, ((day, name), blocks) in enumerate(sorted(sessions.items()))
    ]
    return Plan(tuple(planned), electrodes, seed, tuning_loss)


def _session(name: str, day: date, blocks: _Blocks, modes: tuple[Mode, Mode]) -> Session:
    """With blocks and trials in the order of their numbers."""
    return Session(
        name,
        day,
        tuple(
            Block(number, modes[place % 2], tuple(prompt for _, prompt in sorted(prompts.items())))
            for place, (number, prompts) in enumerate(sorted(blocks.items()))
        ),
    )


def _text(table: Path) -> str:
    try:
        return table.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{table} is not UTF-8 text: give a CSV of labels") from error


def _day(session: str) -> date:
    found = _DAY.fullmatch(session or "")
    if not found:
        raise ValueError(f"session {session!r} does not end with a day, as t15.2023.08.11 does")
    return date(*map(int, found.groups()))


def _prompt(row: dict[str, str]) -> Prompt:
    split, sentence = row["split"], row["ground_truth_text"] or ""
    if split not in SPLITS:
        raise ValueError(f"split {split!r} is not {', '.join(SPLITS)}")
    words = (row["ground_truth_phonemes"] or "").split("|")
    phonemes = sentence_ids(word.split() for word in words if word.strip())
    for column, count in zip(_COLUMNS[-2:], (len(phonemes), len(sentence)), strict=True):
        if not 0 < count <= LABEL_WIDTH:
            raise ValueError(f"{column} has {count}; give 1 to {LABEL_WIDTH}")
    return Prompt(_number(row, "trial"), split, sentence, phonemes)


def _number(row: dict[str, str], column: str) -> int:
    if not (row[column] or "").isdecimal():
        raise ValueError(f"{column} is {row[column]!r}, not a whole number")
    return int(row[column])
