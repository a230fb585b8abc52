"""What the studies share: a run's log, tables in Markdown, and error rates over several seeds."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from modessm_jax.text import Edits, bootstrap_interval, percent, total


def read_log(workdir: Path) -> list[dict[str, Any]]:
    """The lines of a run's metrics.jsonl."""
    text = (workdir / "metrics.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown, without a line break at its end."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def together(seeds: Sequence[Sequence[Edits]]) -> list[Edits]:
    """Each trial's edits, summed over the seeds, which all decoded the same trials."""
    return [total(of_seeds) for of_seeds in zip(*seeds, strict=True)]


def difference(ours: Sequence[Sequence[Edits]], theirs: Sequence[Sequence[Edits]]) -> str:
    """Error rate of ours less theirs, all seeds together, with its 95 % interval over trials."""
    one, other = together(ours), together(theirs)
    low, high = bootstrap_interval(one, seed=0, against=other)
    mean = total(one).rate - total(other).rate
    return f"{percent(mean)} ({percent(low)} to {percent(high)})"
