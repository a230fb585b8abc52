"""Trains the decoders of the drift study, recalibrates them, and scores every later session."""

import json
import time
from collections.abc import Callable
from dataclasses import astuple
from functools import partial
from pathlib import Path
from typing import NamedTuple

from modessm_jax.data.roots import session_names
from modessm_jax.recalibration import labelled
from modessm_jax.recalibration.adapter import Adapter, with_session
from modessm_jax.recalibration.job import read_label, read_session, recalibrate, score
from modessm_jax.recalibration.unlabelled import Label, Options, Recalibrator
from modessm_jax.runs.load import Run, load_run
from modessm_jax.runtime.files import write_json
from modessm_jax.text import Edits
from modessm_jax.training.job import run as train
from studies.shared import output_of, train_in_process

FROZEN, TRAINED = "frozen", "trained on all sessions"


class Plan(NamedTuple):
    """What is asked of the study; see `python -m studies.drift --help`."""

    data: Path
    work: Path
    config: str
    later: tuple[str, ...]
    trials: tuple[int, ...]
    methods: tuple[str, ...]
    passes: int
    lexicon: Path | None
    lm: Path | None
    further: tuple[str, ...]


class Scored(NamedTuple):
    """One way of decoding, of one seed.

    Attributes:
        later: for each later session the edits of its val trials.
        earlier: the edits of the val trials of the sessions trained on, all together; none where
            this way does not change how they are decoded.
        seconds: that recalibration took for each later session.
        taken_back: for each later session, the checks that took steps back, and all of them.
    """

    later: dict[str, list[Edits]]
    earlier: list[Edits]
    seconds: dict[str, float]
    taken_back: dict[str, tuple[int, int]]


Found = dict[str, Scored]  # by the name of the way


def trained_first(plan: Plan) -> tuple[str, ...]:
    """The sessions that the first decoder is trained on.

    Raises:
        ValueError: a later session is not in the data, or no other is.
    """
    names = session_names(plan.data)
    strange = sorted(set(plan.later) - set(names))
    if strange:
        raise ValueError(f"{plan.data} has no session {', '.join(strange)}")
    first = tuple(name for name in names if name not in plan.later)
    if not first:
        raise ValueError("--later leaves no session to train the first decoder on")
    return first


def measure(plan: Plan, seed: int) -> Found:
    """Everything for one seed; what was scored before is read from the folder of the study."""
    folder, first = plan.work / f"seed-{seed}", trained_first(plan)
    _train(plan, seed, folder / "first", first)
    run = load_run(folder / "first")
    _train(plan, seed, folder / "all", (), as_long_as=run)
    found: Found = {}

    def way(name: str, measured: Callable[[], Scored]) -> None:
        path = folder / "scores" / f"{name.replace(' ', '-')}.json"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            write_json(path, _plain(measured()))
            print(f"seed {seed}: {name} scored", flush=True)
        found[name] = _read(path)

    def as_it_is(run: Run) -> Scored:
        later = score(run, plan.data, plan.later)
        earlier = score(run, plan.data, first)
        return Scored(later, [one for name in first for one in earlier.get(name, [])], {}, {})

    way(FROZEN, partial(as_it_is, run))
    way(TRAINED, lambda: as_it_is(load_run(folder / "all")))
    for count in plan.trials:
        way(f"{count} labelled trials", partial(_labelled, plan, folder, run, count, "adapter"))
    way("20 labelled trials and replay", partial(_labelled, plan, folder, run, 20, "all"))
    label = None if plan.lexicon is None else read_label(plan.lexicon, plan.lm)
    for method in plan.methods:
        way(method, partial(_unlabelled, plan, run, method, label))
    return found


def _train(
    plan: Plan,
    seed: int,
    workdir: Path,
    sessions: tuple[str, ...],
    as_long_as: Run | None = None,
) -> None:
    """Trains a decoder in a process of its own, or goes on with it, unless it is complete.

    With `as_long_as` it makes as many passes over its trials as that run over its own.
    """
    if (workdir / "results.json").exists():
        return
    further = [*plan.further]
    if as_long_as is not None:
        counts = [
            sum(len(read_session(as_long_as, plan.data, name)) for name in names)
            for names in (session_names(plan.data), as_long_as.sessions)
        ]
        steps = as_long_as.config["training"]["steps"] * counts[0] / counts[1]
        further.append(f"--config.training.steps={round(steps)}")
    arguments = [
        f"--config={plan.config}", f"--config.data.root={plan.data}",
        f"--config.data.sessions={sessions!r}", f"--config.training.seed={seed}", *further,
    ]  # fmt: skip
    print(f"training {workdir}", flush=True)
    if train_in_process(workdir, arguments).status:
        raise RuntimeError(f"training failed; its output is in {output_of(workdir)}")


def _labelled(plan: Plan, folder: Path, run: Run, count: int, recipe: str) -> Scored:
    later: dict[str, list[Edits]] = {}
    seconds: dict[str, float] = {}
    earlier: list[Edits] = []
    for session in plan.later:
        out = folder / f"{recipe}-{count}-{session}"
        trials = read_session(run, plan.data, session).trials
        config = labelled.recalibration(
            run.config,
            folder / "first",
            root=plan.data,
            session=session,
            replayed=list(run.sessions),
            unused=trials[count:],
            recipe=recipe,
            steps=labelled.STEPS,
            batch_size=len(trials[:count]),
        )
        start = time.perf_counter()
        train(config, out)
        seconds[session] = time.perf_counter() - start
        recalibrated = load_run(out)
        later |= score(recalibrated, plan.data, [session])
        if labelled.RECIPES[recipe].replay:
            found = score(recalibrated, plan.data, list(run.sessions))
            earlier += [one for edits in found.values() for one in edits]
    return Scored(later, earlier, seconds, {})


def _unlabelled(plan: Plan, run: Run, method: str, label: Label | None) -> Scored:
    later: dict[str, list[Edits]] = {}
    seconds: dict[str, float] = {}
    taken_back: dict[str, tuple[int, int]] = {}
    adapter: Adapter | None = None
    recalibrator = Recalibrator(run, Options(method=method), label)
    for session in plan.later:
        start = time.perf_counter()
        recalibrate(recalibrator, run, plan.data, session, passes=plan.passes, begin=adapter)
        adapter = recalibrator.result()
        seconds[session] = time.perf_counter() - start
        taken_back[session] = recalibrator.taken_back, recalibrator.checks
        later |= score(with_session(run, session, adapter), plan.data, [session])
    return Scored(later, [], seconds, taken_back)


def _plain(scored: Scored) -> dict[str, object]:
    return {
        "later": {name: list(map(astuple, edits)) for name, edits in scored.later.items()},
        "earlier": list(map(astuple, scored.earlier)),
        "seconds": scored.seconds,
        "taken_back": scored.taken_back,
    }


def _read(path: Path) -> Scored:
    saved = json.loads(path.read_text(encoding="utf-8"))
    return Scored(
        {name: [Edits(*one) for one in edits] for name, edits in saved["later"].items()},
        [Edits(*one) for one in saved["earlier"]],
        saved["seconds"],
        {name: (back, checks) for name, (back, checks) in saved["taken_back"].items()},
    )
