"""Trains the runs of a leaderboard, scores them on val, and keeps what was found."""

import json
import os
from collections.abc import Mapping
from dataclasses import astuple
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

import modessm_jax
from modessm_jax.data.recordings import read_recordings
from modessm_jax.evaluation.scoring import evaluate_run
from modessm_jax.runs.load import Run, load_run
from modessm_jax.runtime.files import write_json, write_text
from modessm_jax.runtime.lock import run_lock
from modessm_jax.text import Edits
from studies.leaderboard.plan import Entry, Plan, probe, steps_within
from studies.shared import output_of, read_log, train_in_process

CTC, RNNT = "CTC", "RNN-T"
_PUSHED, _TIMED = 4, 300  # bins of a push, 80 ms; steps that are timed


class FailedError(RuntimeError):
    """The training of a run failed; the message names the file of its output."""


class Job(NamedTuple):
    """One run of the board."""

    entry: Entry
    data: Path
    seed: int

    def __str__(self) -> str:
        return f"{self.data.name}, {self.entry.name}, seed {self.seed}"


class Scored(NamedTuple):
    """What was found of a run.

    Attributes:
        edits: of every val trial, by head.
        curve: (steps, PER) of its evaluations, of the head that the last stage selects by.
        parameters: of the model.
        steps: of training.
        seconds: of these steps, by the clock of the plan.
        memory: most KiB that its process took; 0 where the system does not tell.
        latency: median seconds of a step of its stream; None where the model needs whole trials.
    """

    edits: dict[str, list[Edits]]
    curve: list[tuple[int, float]]
    parameters: int
    steps: int
    seconds: float
    memory: int
    latency: float | None


def folder_of(plan: Plan, job: Job) -> Path:
    """The folder of a run and of what is found of it."""
    terms = "recipe" if plan.seconds is None else f"{plan.seconds:g}s-{plan.clock}"
    return plan.work / job.data.name / job.entry.folder / terms / f"seed-{job.seed}"


def predictions_of(plan: Plan, job: Job) -> Path:
    """The file of what the best model decodes of the test split."""
    return folder_of(plan, job) / "test.jsonl"


def is_complete(plan: Plan, job: Job) -> bool:
    """Whether a run is trained and scored, the test split included where it is asked for."""
    files = [folder_of(plan, job) / "score.json", *[predictions_of(plan, job)] * plan.test]
    return all(file.exists() for file in files)


def measure(plan: Plan, job: Job) -> Scored:
    """Trains a run, or goes on with it, and scores it; what is complete is only read.

    Raises:
        BusyError: another process is at this run, or measures the seconds of its steps.
        FailedError: the training failed.
        ValueError: the folder holds a run with other arguments.
    """
    folder = folder_of(plan, job)
    workdir, score = folder / "run", folder / "score.json"
    folder.mkdir(parents=True, exist_ok=True)
    if not is_complete(plan, job):
        with run_lock(folder):
            _train(plan, job, workdir, _chosen(plan, job))
            run = load_run(workdir)
            if not score.exists():
                write_json(score, _score(job, workdir, run))
            if plan.test:
                _decode_test(predictions_of(plan, job), job, run)
            jax.clear_caches()  # of a board's many models, no program is needed again
    else:
        _check_arguments(workdir, _arguments(job, _chosen(plan, job)))
    return _read(score, plan.clock)


def seconds_per_step(plan: Plan, job: Job) -> float:
    """From a short run of the recipe on the data, which all seeds share; compilation left out."""
    folder = plan.work / job.data.name / job.entry.folder / "probe"
    workdir, first = folder / "run", job._replace(seed=0)
    folder.mkdir(parents=True, exist_ok=True)
    if not (workdir / "results.json").exists():
        with run_lock(folder):
            _train(plan, first, workdir, probe(job.entry.config))
    _check_arguments(workdir, _arguments(first, probe(job.entry.config)))
    results = _results(workdir)
    return _seconds(results)[plan.clock] / results["steps"]


def _chosen(plan: Plan, job: Job) -> dict[str, int]:
    """The keys that hold a run to the seconds allowed."""
    if plan.seconds is None:
        return {}
    return steps_within(job.entry.config, plan.seconds, seconds_per_step(plan, job))


def _arguments(job: Job, chosen: Mapping[str, int]) -> list[str]:
    keys = {**chosen, "training.seed": job.seed}
    return [*job.entry.arguments, *(f"--config.{key}={value}" for key, value in keys.items())]


def _train(plan: Plan, job: Job, workdir: Path, chosen: Mapping[str, int]) -> None:
    """Trains a run, or goes on with it, unless it is complete."""
    arguments, known = _arguments(job, chosen), workdir / "arguments.json"
    if known.exists():
        _check_arguments(workdir, arguments)
    if (workdir / "results.json").exists():
        return
    workdir.mkdir(parents=True, exist_ok=True)
    write_json(known, arguments)
    # Runs share what is compiled, unless the user has a cache of their own.
    cache = {
        "JAX_COMPILATION_CACHE_DIR": str(cache_of(plan).absolute()),
        "JAX_PERSISTENT_CACHE_ENABLE_XLA_CACHES": "none",
    }
    given = {} if "JAX_COMPILATION_CACHE_DIR" in os.environ else cache
    ended = train_in_process(workdir, [*arguments, f"--config.data.root={job.data}"], given)
    memory = max(ended.memory, _memory(workdir))
    write_json(workdir / "memory.json", memory)
    if ended.status:
        output = output_of(workdir)
        last = output.read_text(encoding="utf-8").strip().rpartition("\n")[2]
        raise FailedError(f"{job}: training failed: {last}\nIts output is in {output}")


def cache_of(plan: Plan) -> Path:
    """The folder of compiled programs."""
    return plan.work / "compiled"


def _check_arguments(workdir: Path, arguments: list[str]) -> None:
    known = workdir / "arguments.json"
    if json.loads(known.read_text(encoding="utf-8")) != arguments:
        raise ValueError(
            f"{workdir} was trained with other arguments, see {known}; give another --work"
        )


def _memory(workdir: Path) -> int:
    """What the processes took that trained the run before."""
    path = workdir / "memory.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else 0


def _results(workdir: Path) -> dict[str, Any]:
    return json.loads((workdir / "results.json").read_text(encoding="utf-8"))


def _seconds(results: Mapping[str, Any]) -> dict[str, float]:
    """Of the training steps, by clock: without compiling, evaluating, and what was done twice."""
    wall = results["seconds"]["step"] + results["seconds"]["input"]
    return {"cpu": results["cpu_seconds"], "wall": wall}


def _score(job: Job, workdir: Path, run: Run) -> dict[str, Any]:
    """What `Scored` holds, as plain JSON values, with the seconds by clock."""
    results, trials = _results(workdir), evaluate_run(run, "val", job.data).trials
    edits = {CTC: [trial.edits for trial in trials]}
    if trials[0].rnnt is not None:
        edits[RNNT] = [trial.rnnt_edits for trial in trials]
    figure = "rnnt_per" if selected(results["select_by"]) == RNNT else "per"
    return {
        "edits": {head: [astuple(one) for one in found] for head, found in edits.items()},
        "curve": [(line["step"], line[figure]) for line in read_log(workdir) if figure in line],
        "parameters": results["parameters"],
        "steps": results["steps"],
        "seconds": _seconds(results),
        "memory": _memory(workdir),
        "latency": _latency(job, workdir, run),
    }


def _read(score: Path, clock: str) -> Scored:
    saved = json.loads(score.read_text(encoding="utf-8"))
    edits = {head: [Edits(*one) for one in found] for head, found in saved["edits"].items()}
    curve = [(step, rate) for step, rate in saved["curve"]]
    return Scored(**{**saved, "edits": edits, "curve": curve, "seconds": saved["seconds"][clock]})


def selected(select_by: str) -> str:
    """The head whose error rate chooses the best model."""
    return RNNT if "rnnt" in select_by else CTC


def _decode_test(path: Path, job: Job, run: Run) -> None:
    """Writes what the best model decodes of the test split, a line for each trial."""
    lines = []
    for result in evaluate_run(run, "test", job.data).trials:
        found = {"config": job.entry.name, "seed": job.seed, **result.prediction()}
        found.pop("modes", None)
        lines.append(json.dumps(found) + "\n")
    write_text(path, "".join(lines))


def _latency(job: Job, workdir: Path, run: Run) -> float | None:
    """Median seconds of a step of the model, fed with val trials in pieces of 80 ms."""
    if run.functional.steps is None:
        return None
    decoder = modessm_jax.load(workdir)
    recordings = read_recordings(job.data, "val", sessions=run.config["data"]["sessions"])
    session = next(t.session for t in recordings.trials if t.session in decoder.sessions)
    stream = decoder.stream(session)
    found: list[float] = []
    for index, trial in enumerate(recordings.trials):
        if trial.session != session or len(found) >= _TIMED:
            continue
        features = recordings.features(index)
        for start in range(0, len(features), _PUSHED):
            spent, steps = stream.seconds.model, stream.steps
            stream.push(features[start : start + _PUSHED])
            if stream.steps > steps:
                found.append((stream.seconds.model - spent) / (stream.steps - steps))
        stream.reset()
    return float(np.median(found)) if found else None
