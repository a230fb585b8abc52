"""The table of two things measured in turns, and of their ratio round by round."""

from collections.abc import Mapping
from pathlib import Path

from benchmarks.losses.measure import Spread
from benchmarks.losses.report import milliseconds, table


def write(out: Path, title: str, names: Mapping[str, str], found: Mapping[str, Spread]) -> None:
    """Prints the rows, and writes them beside `out`.

    Args:
        out: path without suffix.
        title: of the first column.
        names: a description of each measurement, by its key in `found`.
        found: the seconds of each measurement, and under "ratio" their ratio.
    """
    rows = [
        (name, milliseconds(found[key].median),
         f"{milliseconds(found[key].lower)} to {milliseconds(found[key].upper)}")
        for key, name in names.items()
    ]  # fmt: skip
    ratio = found["ratio"]
    rows.append(("ratio", f"{ratio.median:.4f}", f"{ratio.lower:.4f} to {ratio.upper:.4f}"))
    text = table((title, "ms, median", "quartiles"), rows) + "\n"
    out.with_suffix(".md").write_text(text, encoding="utf-8")
    print(text)
