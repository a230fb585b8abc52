"""What a run records about itself besides its state; saved with every checkpoint."""

import dataclasses
import json
import math
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass
class History:
    """Plain JSON values, so that a resumed run goes on as if it had not been interrupted."""

    stages: list[dict[str, Any]] = dataclasses.field(default_factory=list)  # name, begun: a step
    evaluations: list[dict[str, float]] = dataclasses.field(default_factory=list)
    best: dict[str, float] | None = None  # see `evaluated`
    infeasible: list[str] = dataclasses.field(default_factory=list)  # trials with too few frames
    window: dict[str, float] = dataclasses.field(default_factory=dict)  # sums since the last line
    window_steps: int = 0  # in these sums: those that were not skipped
    skipped: int = 0  # steps that were not finite and changed nothing
    skipped_in_a_row: int = 0
    first_saved: int | None = None  # step of the first scheduled checkpoint; see `Recovery`
    rollbacks: list[dict[str, Any]] = dataclasses.field(default_factory=list)  # see `Recovery`
    rate: float = 1.0  # factor of the learning rate
    trend: dict[str, Any] = dataclasses.field(default_factory=dict)  # see `Guard`
    lines: int = 0  # of the log, when this was saved
    seconds: dict[str, float] = dataclasses.field(default_factory=dict)

    def to_json(self) -> str:
        """The history as one line of JSON; floats are kept exactly."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> "History":
        """Reads what `to_json` wrote, in this format or an earlier one."""
        fields = json.loads(text)
        if "setbacks" in fields:  # format 1
            fields["rollbacks"] = fields.pop("setbacks")
        return cls(**fields)

    def add(self, scalars: Mapping[str, Any]) -> None:
        """Adds the metrics of a step to the window; a skipped step is only counted."""
        skipped = float(scalars.get("skipped", 0.0)) > 0.0
        for name, value in scalars.items():
            if not skipped or name == "skipped":
                self.window[name] = self.window.get(name, 0.0) + float(value)
        self.window_steps += not skipped

    def drain(self, *, counts: tuple[str, ...]) -> dict[str, float]:
        """Empties the window; returns the sums of the metrics in `counts`, the means of others."""
        steps, window = self.window_steps, self.window
        self.window, self.window_steps = {}, 0
        return {k: v if k in counts else v / steps for k, v in sorted(window.items())}

    @property
    def last_evaluated(self) -> int:
        """The step of the latest evaluation; 0 before the first."""
        return int(self.evaluations[-1]["step"]) if self.evaluations else 0

    def without_better(self, metric: str) -> int:
        """How many evaluations of the present stage came after the one with the lowest `metric`."""
        begun = self.stages[-1]["begun"]
        values = [record[metric] for record in self.evaluations if record["step"] > begun]
        return len(values) - 1 - values.index(min(values)) if values else 0

    def evaluated(self, step: int, metrics: Mapping[str, float], select_by: str) -> bool:
        """Records an evaluation; returns whether it is the best so far, the lowest in `select_by`.

        Only evaluations of the present stage compete, because earlier models lack what it trains.
        Of equal ones the last is best, because the stage may train what this metric does not show.

        Raises:
          ValueError: the evaluation has no metric of that name.
        """
        if select_by not in metrics:
            raise ValueError(
                f"select_by is {select_by!r} but the evaluation measured "
                f"{sorted(metrics)}; choose one of these, or evaluate a split that has labels"
            )
        record = {"step": step, **{name: float(value) for name, value in metrics.items()}}
        self.evaluations.append(record)
        value = record[select_by]
        begun = self.stages[-1]["begun"] if self.stages else -1
        rival = None if self.best is None or self.best["step"] <= begun else self.best
        better = rival is None or value <= rival[select_by]
        if math.isfinite(value) and better:
            self.best = record
            return True
        return False
