"""The report of the drift study: tables in Markdown, and a picture."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

import numpy as np
from matplotlib.figure import Figure

from modessm_jax.recalibration.labelled import STEPS
from modessm_jax.runs.sessions import day_of
from modessm_jax.text import Edits, percent, total
from studies.drift.measure import FROZEN, TRAINED, Found, Scored
from studies.shared import difference, table, together

Study = Mapping[int, Found]  # by seed

_RESAMPLES = 2000


def format_report(study: Study, trained: Sequence[str], *, title: str, command: str) -> str:
    """Markdown: every way in every session, the gap that each regains, and what it costs."""
    ways = list(next(iter(study.values())))
    parts = [
        f"# Drift: {title}\n\n    {command}",
        "Val phoneme error rates of sessions that the first decoder was not trained on, the mean "
        f"of {len(study)} seeds, and each seed in brackets. Labelled recalibrations make "
        f"{STEPS} updates, of the adapter alone, or (with replay) of all parameters.",
        _rates(study, ways, trained),
        "What each way regains of the gap between the frozen decoder and the one trained on all "
        "sessions, over all later sessions and seeds, with 95 % bootstrap intervals over trials; "
        "the worst session of any seed against the frozen decoder there; the error rate of the "
        "sessions trained on, before and after; and the seconds that recalibration of a session "
        "took (median and largest; compilation included).",
        _gaps(study, ways),
    ]
    return "\n\n".join(parts) + "\n"


def draw(path: Path, study: Study, trained: Sequence[str]) -> None:
    """Draws the error rate of every way over the later sessions, seeds together."""
    sessions, ways = _sessions(study), list(next(iter(study.values())))
    figure = Figure(figsize=(8.0, 4.6), dpi=100, layout="constrained")
    panel = figure.subplots()
    for place, way in enumerate(ways):
        plain = {FROZEN: "black", TRAINED: "grey"}
        panel.plot(
            range(len(sessions)),
            [100 * _of(study, way, [session]).rate for session in sessions],
            marker="o",
            markersize=4,
            color=plain.get(way, f"C{place % 10}"),
            linestyle="-" if way in plain else "--" if "labelled" in way else ":",
            label=way,
        )
    panel.set_xticks(range(len(sessions)), [_named(name, trained) for name in sessions])
    panel.set_ylabel("val phoneme error rate, %")
    panel.set_ylim(bottom=0)
    panel.legend(fontsize=7, ncols=2)
    figure.savefig(path)


def _sessions(study: Study) -> list[str]:
    return list(next(iter(study.values()))[FROZEN].later)


def _named(session: str, trained: Sequence[str]) -> str:
    """The session, and the days since the last one trained on where the names have dates."""
    days = [day for day in map(day_of, trained) if day is not None]
    day = day_of(session)
    return session if day is None or not days else f"{session}\n{(day - max(days)).days} days on"


def _trials(found: Scored, sessions: Sequence[str]) -> list[Edits]:
    return [one for name in sessions for one in found.later[name]]


def _of(study: Study, way: str, sessions: Sequence[str]) -> Edits:
    return total(total(_trials(found[way], sessions)) for found in study.values())


def _rates(study: Study, ways: Sequence[str], trained: Sequence[str]) -> str:
    sessions = _sessions(study)
    rows = []
    for way in ways:
        cells = []
        for name in sessions:
            seeds = ", ".join(percent(total(f[way].later[name]).rate) for f in study.values())
            cells.append(f"{percent(_of(study, way, [name]).rate)} ({seeds})")
        rows.append([way, *cells])
    return table(["", *(_named(name, trained).replace("\n", ", ") for name in sessions)], rows)


def _gaps(study: Study, ways: Sequence[str]) -> str:
    sessions = _sessions(study)
    rows = []
    for way in ways:
        ours = [_trials(found[way], sessions) for found in study.values()]
        frozen, best = (
            [_trials(found[name], sessions) for found in study.values()]
            for name in (FROZEN, TRAINED)
        )
        worst = max(
            total(found[way].later[name]).rate - total(found[FROZEN].later[name]).rate
            for found in study.values()
            for name in sessions
        )
        seconds = [one for found in study.values() for one in found[way].seconds.values()]
        backs = [one for found in study.values() for one in found[way].taken_back.values()]
        compared = way not in (FROZEN, TRAINED)
        rows.append(
            [
                way,
                percent(total(together(ours)).rate),
                difference(ours, frozen) if way != FROZEN else "",
                _regained(ours, frozen, best) if compared else "",
                f"{100 * worst:+.2f}" if compared else "",
                _earlier(study, way),
                f"{median(seconds):.0f} ({max(seconds):.0f})" if seconds else "",
                f"{sum(b for b, _ in backs)} of {sum(n for _, n in backs)}" if backs else "",
            ]
        )
    header = ["", "error rate", "against frozen", "of the gap", "worst, points",
              "sessions trained on", "seconds", "checks taken back"]  # fmt: skip
    return table(header, rows)


def _earlier(study: Study, way: str) -> str:
    """The error rate of the sessions trained on: with this way, and before where it changes."""
    before, after = (
        total(total(found[name].earlier) for found in study.values()) for name in (FROZEN, way)
    )
    if not after.reference_length:
        return "unchanged"
    return percent(after.rate) + ("" if way == FROZEN else f" (before {percent(before.rate)})")


def _regained(
    ours: Sequence[Sequence[Edits]],
    frozen: Sequence[Sequence[Edits]],
    best: Sequence[Sequence[Edits]],
) -> str:
    """The share of the gap, with a 95 % interval over resamples of the trials."""
    errors = np.array([[one.count for one in together(way)] for way in (ours, frozen, best)], float)
    shares = np.full(errors.shape[1], 1 / errors.shape[1])
    draws = np.random.default_rng(0).multinomial(errors.shape[1], shares, size=_RESAMPLES)

    def share(sums: np.ndarray) -> np.ndarray:
        return (sums[1] - sums[0]) / np.where(sums[1] == sums[2], np.nan, sums[1] - sums[2])

    low, high = np.nanquantile(share(errors @ draws.T), [0.025, 0.975])
    return f"{share(errors.sum(axis=1)):.0%} ({low:.0%} to {high:.0%})"
