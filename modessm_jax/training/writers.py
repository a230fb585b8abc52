"""Where a run's figures go: JSON lines as the record, TensorBoard for the eye."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from tensorboard.summary import Writer


def write_text(path: Path, text: str) -> None:
    """Replaces a file in one go, so that a killed process leaves the old one or the new one."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)


def write_json(path: Path, value: Any) -> None:
    """Replaces a file by `value` as readable JSON."""
    write_text(path, json_text(value))


def json_text(value: Any) -> str:
    """Readable JSON of plain values; the same values give the same bytes."""
    return json.dumps(value, indent=2, sort_keys=True) + "\n"


class MetricWriter:
    """Appends figures to `metrics.jsonl` and to TensorBoard's files.

    Each line is an object with "step" (updates made so far), "kind" ("train", "evaluation",
    "skipped", "setback") and the figures. Nothing in it depends on the clock, so two runs of one
    seed write the same bytes. Lines beyond the step the run resumes from are removed, as is a last
    line that was cut short; and the setbacks that led back to that step, for it is the run's
    history that knows whether they were seen through.
    TensorBoard's files alone hold times ("time/..."), and repeat steps that were run twice.
    """

    def __init__(self, workdir: Path, *, resumed_from: int = 0):
        path = workdir / "metrics.jsonl"
        end = (resumed_from, "setback")
        read = [(line, json.loads(line)) for line in _complete_lines(path)]
        kept = [
            line
            for line, of in read
            if of["step"] <= resumed_from and (of["step"], of["kind"]) != end
        ]
        write_text(path, "".join(kept))
        self._lines = path.open("a", encoding="utf-8")
        self._board = Writer(str(workdir / "tensorboard"))

    def __enter__(self) -> "MetricWriter":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._lines.close()
        self._board.close()

    def write(self, step: int, kind: str, figures: Mapping[str, float]) -> None:
        """Writes one line, and a point of each curve; on disk when this returns."""
        self.note(step, kind, figures)
        self.chart(step, kind, figures)

    def note(self, step: int, kind: str, facts: Mapping[str, Any]) -> None:
        """Writes one line, of values of any kind that JSON has, and no curve."""
        self._lines.write(json.dumps({"step": step, "kind": kind, **facts}) + "\n")
        self._lines.flush()
        os.fsync(self._lines.fileno())

    def chart(self, step: int, kind: str, figures: Mapping[str, float]) -> None:
        """Adds a point to each curve in TensorBoard, and nothing to the record."""
        for name, value in figures.items():
            self._board.add_scalar(f"{kind}/{name}", value, step)


def _complete_lines(path: Path) -> list[str]:
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    return [line for line in lines if line.endswith("\n")]
