"""Writes the metrics of a run, as JSON lines and for TensorBoard."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tensorboard.summary import Writer

from modessm_jax.runtime.files import write_text

ROLLBACK = ("rollback", "setback")  # kinds of line; the latter in runs of format 1


class MetricWriter:
    """Appends figures to `metrics.jsonl` and to TensorBoard's files.

    Each line is an object with "step" (updates made so far), "kind" ("train", "evaluation",
    "skipped", "rollback") and the figures. Nothing in it depends on the clock, so two runs of one
    seed write the same bytes. TensorBoard's files alone hold times ("time/..."), and repeat steps
    that were run twice.

    Args:
      workdir: of the run.
      lines: how many the run had written where it goes on from; later ones are removed, as is one
        that was cut short.

    Attributes:
      lines: how many there are now.
      rollbacks: how many of the kept lines are of a rollback.
    """

    def __init__(self, workdir: Path, *, lines: int = 0):
        path = workdir / "metrics.jsonl"
        kept = _complete_lines(path)[:lines]
        write_text(path, "".join(kept))
        self.lines = len(kept)
        self.rollbacks = sum(json.loads(line)["kind"] in ROLLBACK for line in kept)
        self._file = path.open("a", encoding="utf-8")
        self._board = Writer(str(workdir / "tensorboard"))

    def __enter__(self) -> "MetricWriter":
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()
        self._board.close()

    def write(self, step: int, kind: str, metrics: Mapping[str, float]) -> None:
        """Writes one line, and a point of each curve; on disk when this returns."""
        self.note(step, kind, metrics)
        self.chart(step, kind, metrics)

    def note(self, step: int, kind: str, facts: Mapping[str, Any]) -> None:
        """Writes one line, of plain JSON values, and no curve."""
        self._file.write(json.dumps({"step": step, "kind": kind, **facts}) + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())
        self.lines += 1

    def chart(self, step: int, kind: str, metrics: Mapping[str, float]) -> None:
        """Adds a point to each curve in TensorBoard, and no line to `metrics.jsonl`."""
        for name, value in metrics.items():
            self._board.add_scalar(f"{kind}/{name}", value, step)


def _complete_lines(path: Path) -> list[str]:
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    return [line for line in lines if line.endswith("\n")]
