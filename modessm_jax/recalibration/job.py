"""Recalibrates a run for a session without labels, and scores what recalibration has changed."""

from collections.abc import Sequence
from pathlib import Path

from modessm_jax.data.recordings import Recordings
from modessm_jax.data.roots import session_names
from modessm_jax.data.validation import DataError
from modessm_jax.evaluation.scoring import evaluate_run
from modessm_jax.language.lexicon import Lexicon
from modessm_jax.language.ngram import NGram
from modessm_jax.recalibration.adapter import Adapter, first_adapter
from modessm_jax.recalibration.statistics import FeatureStatistics
from modessm_jax.recalibration.unlabelled import (
    STATISTICS,
    Label,
    Recalibrator,
    Update,
    sentence_label,
)
from modessm_jax.runs.load import Run, read_configured
from modessm_jax.runs.sessions import NEAREST, Choice, nearest
from modessm_jax.runtime.progress import Clock, Progress
from modessm_jax.text import Edits, percent, total


def read_label(lexicon: Path, lm: Path | None) -> Label:
    """Labels a trial by a word search for these words, weighed by an n-gram if there is one.

    Raises:
        ImportError: the packages of the word search are not installed.
        ValueError: the lexicon or the n-gram is unfit.
    """
    from modessm_jax.search.ctc import WordSearch
    from modessm_jax.search.options import SearchOptions

    words = Lexicon.read(lexicon)
    ngram = None if lm is None else NGram(lm)
    if ngram is not None:
        ngram.lacking(words.words)
    return sentence_label(WordSearch(words, ngram, SearchOptions(beam=100, nbest=1)))


def read_session(run: Run, root: Path, session: str) -> Recordings:
    """The training trials of a session, labelled or not.

    Raises:
        DataError: there are none, or they are invalid.
    """
    if session not in session_names(root):
        raise DataError(f"{root} has no session {session}, but {', '.join(session_names(root))}")
    data = {**run.config["data"], "exclude": ()}
    return read_configured(
        data, "train", root=root, sessions=[session], expect_channels=run.channels
    )


def recalibrate(
    recalibrator: Recalibrator,
    run: Run,
    root: Path,
    session: str,
    *,
    trials: int | None = None,
    passes: int = 1,
    begin: Adapter | None = None,
) -> list[Update]:
    """Recalibrates the adapter of a session with the features of its training trials.

    The adapter is then `recalibrator.result()`.

    Args:
        recalibrator: of the run.
        run: whose model is recalibrated.
        root: of the recordings.
        session: its name.
        trials: how many of its trials to use, the first; by default all.
        passes: how often each is used.
        begin: adapter to begin with; by default see `first_adapter`, by the rule "nearest".

    Raises:
        DataError: there are no such recordings, or they are invalid.
        ValueError: the model has no adapters.
    """
    recordings = read_session(run, root, session)
    count = len(recordings) if trials is None else min(trials, len(recordings))
    if begin is None:
        begin = first_adapter(run, session, NEAREST)
    needs = recalibrator.options.method == STATISTICS
    like = session if session in run.sessions else nearest(session, run.sessions)
    recalibrator.begin(begin, features_of(run, root, like) if needs else None)
    clock = Clock()
    progress = Progress(passes * count, clock, noun="trial")
    updates: list[Update] = []
    for index in [*range(count)] * passes:
        with clock.account("step"):
            updates.append(recalibrator(recordings.features(index)))
        done = len(updates)
        if done % 20 == 0 or done == passes * count:
            progress.show(done, f"doubt {updates[-1].doubt:.3f}", progress.rate(done))
    return updates


def features_of(run: Run, root: Path, session: str) -> FeatureStatistics:
    """The statistics of a session of the run, from its training trials.

    Args:
        run: that was trained on the session.
        root: of recordings; the one that the run was trained on is looked into after it.
        session: its name.

    Raises:
        DataError: there are no such trials, or they are invalid.
    """
    places = dict.fromkeys((root, Path(run.config["data"]["root"])))
    for place in places:
        if (place / session / "data_train.hdf5").exists():
            found = read_session(run, place, session)
            return FeatureStatistics.of(run.channels, map(found.features, range(len(found))))
    raise DataError(
        f"statistics need the training trials of {session}, which are not in "
        f"{' or '.join(map(str, places))}. Put them there, or choose another method."
    )


def score(run: Run, root: Path, sessions: Sequence[str]) -> dict[str, list[Edits]]:
    """The phoneme edits of every val trial of some sessions, by session.

    Those without val trials are left out. A transducer's model is scored by its transducer.

    Raises:
        DataError: the data are invalid.
    """
    there = [name for name in sessions if (root / name / "data_val.hdf5").exists()]
    if not there:
        return {}
    choice = Choice(sessions=tuple(there), untrained=NEAREST)
    found: dict[str, list[Edits]] = {name: [] for name in there}
    for result in evaluate_run(run, "val", root, choice).trials:
        found[result.trial.session].append(
            result.edits if result.rnnt is None else result.rnnt_edits
        )
    return found


def compare(
    before: dict[str, list[Edits]], after: dict[str, list[Edits]], session: str
) -> tuple[str, dict[str, float]]:
    """Error rates before and after, of the session and of the others, as a table and as values."""
    lines, values = [f"{'val phoneme error rate':34}{'trials':>8}{'before':>10}{'after':>10}"], {}
    others = [name for name in before if name != session]
    for title, key, names in (
        (session, "session", [name for name in before if name == session]),
        (f"{len(others)} sessions trained on", "others", others),
    ):
        if not names:
            lines.append(f"{title:34}{'none':>8}")
            continue
        rates = []
        for found in (before, after):
            rates.append(total(edits for name in names for edits in found[name]).rate)
        count = sum(len(before[name]) for name in names)
        lines.append(f"{title:34}{count:>8}" + "".join(f"{percent(rate):>10}" for rate in rates))
        values |= {f"{key}_before": rates[0], f"{key}_after": rates[1]}
    return "\n".join(lines), values
