"""Detecting from its figures that a run has to go back: non-finite steps, a loss that keeps rising.

The level of a stage is the lowest median that the log of its loss had over a window of steps, with
the deviation in that window. Training lowers the level; batches that are hard, and single spikes,
leave both where they are. A run whose latest steps nearly all lie far above the level has lost what
it had learned. A gradient that grows is no such sign, for it does so too when a CTC model begins to
tell phonemes apart; but where the loss rises, the gradient often tells since when.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from modessm_jax.runs.history import History
from modessm_jax.training.settings import GuardSettings

NONFINITE, DIVERGENCE = "nonfinite", "divergence"
DEVIATIONS = 6.0
SUSTAINED = 0.75  # of the latest quarter of a window
_MAD_TO_SIGMA = 1.4826  # of normal values
_TINY = 1e-30


class Rollback(NamedTuple):
    """Why a run is to go back, and to where."""

    cause: str
    found: int  # the step that showed it
    sound: int  # steps after which it was in order


class Level(NamedTuple):
    """Where a figure lies and how far it strays, robustly: the logs' median and deviation."""

    median: float
    deviation: float

    def rise(self, smallest: float) -> float:
        """How far above the median nothing is by chance; at least `smallest`."""
        return max(DEVIATIONS * self.deviation, smallest)


def level(logs: np.ndarray) -> Level:
    """Median, and median absolute deviation as the standard deviation of normal values."""
    middle = _median(logs)
    return Level(middle, _MAD_TO_SIGMA * _median(np.abs(logs - middle)))


class Guard:
    """Judges a run step by step.

    Its state is kept in the history, and so in every checkpoint: `skipped_in_a_row`; and `trend`
    with the latest `steps`, the logs of their `loss` and `gradient_norm`, and the `level` of both.
    """

    def __init__(self, settings: GuardSettings, history: History):
        self._settings = settings
        self._history = history

    def judge(self, step: int, figures: Mapping[str, Any]) -> Rollback | None:
        """Whether the run has to go back after a step.
        Steps count from 1; of the figures "skipped", "loss" and "gradient_norm" are used.
        """
        if figures["skipped"]:
            return self._skipped(step)
        return self._made(step, float(figures["loss"]), float(figures["gradient_norm"]))

    def _skipped(self, step: int) -> Rollback | None:
        history = self._history
        history.skipped += 1
        history.skipped_in_a_row += 1
        if history.skipped_in_a_row <= self._settings.nonfinite_budget:
            return None
        return Rollback(NONFINITE, step, step)  # what is saved is finite at any time

    def _made(self, step: int, loss: float, gradient_norm: float) -> Rollback | None:
        self._history.skipped_in_a_row = 0
        if not self._settings.divergence or loss <= 0.0:  # no valid example says nothing
            return None
        window, trend = self._settings.window, self._history.trend
        figures = {
            "steps": step,
            "loss": math.log(loss),
            "gradient_norm": math.log(max(gradient_norm, _TINY)),
        }
        for name, value in figures.items():
            trend.setdefault(name, []).append(value)
            del trend[name][:-window]
        if len(trend["steps"]) < window:
            return None
        losses, norms = np.array(trend["loss"]), np.array(trend["gradient_norm"])
        if "level" not in trend or _median(losses) < trend["level"][0][0]:
            trend["level"] = [list(level(losses)), list(level(norms))]
        if excess(trend, self._settings) <= 1.0:
            return None
        # It began where most steps since are more than half way up.
        begun = min(_since(rise > 0.5) for rise in _rises(trend, self._settings))
        return Rollback(DIVERGENCE, step, trend["steps"][begun] - 1)

    def begin_stage(self) -> None:
        """Starts anew: another stage has another loss."""
        self._history.trend.clear()
        self._history.skipped_in_a_row = 0


def excess(trend: Mapping[str, Any], settings: GuardSettings) -> float:
    """How far `SUSTAINED` of the latest losses lie above the level; 1 is where an alarm begins."""
    if "level" not in trend:
        return 0.0
    losses, _ = _rises(trend, settings)
    latest = np.sort(losses[-(settings.window // 4) :])
    return float(latest[-math.ceil(SUSTAINED * len(latest))])


def _rises(trend: Mapping[str, Any], settings: GuardSettings) -> list[np.ndarray]:
    """Of the loss and of the gradient norm: each step's height over the level, by what counts."""
    smallest = math.log(settings.rise)
    known = [Level(*figures) for figures in trend["level"]]
    return [
        (np.array(trend[name]) - of.median) / of.rise(smallest)
        for name, of in zip(("loss", "gradient_norm"), known, strict=True)
    ]


def _since(elevated: np.ndarray) -> int:
    """The first of the steps that are elevated from which on at least half are; else the last."""
    share = np.cumsum(elevated[::-1])[::-1] / np.arange(len(elevated), 0, -1)
    found = np.flatnonzero(elevated & (share >= 0.5))
    return int(found[0]) if len(found) else len(elevated) - 1


def _median(values: np.ndarray) -> float:
    ordered = np.sort(values)  # a tenth of the time of np.median, for some sixty values
    half = len(ordered) // 2
    return float((ordered[half] + ordered[~half]) / 2)
