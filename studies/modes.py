"""Does MODE-SSM infer the speaking mode, and does the mode help? Accuracies and error rates.

    python -m studies.modes --out studies/results/modes RUN [RUN ...] --without RUN [RUN ...]

The runs after --without were trained without modes, one for each of the others and with its seed.

"The other z" is the inferred posterior with its two modes exchanged: the cost of a wrong mode. The
true modes of simulated recordings are in `truth.json` beside them. Where sessions are named
`<speaker>.<condition>`, the true mode is whether the condition is the one that all speakers share
(F in subvocal_emg, where each speaker also has either A or S). The modes are learned without
labels, so accuracy is that of the better assignment of modes to labels, and chance is the fraction
of the commoner label. "Tied by block", the trials of a block share a mode, by the product of their
posteriors. Differences are of all seeds together, with a 95 % bootstrap interval over trials.
Writes OUT.md.
"""

import argparse
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from modessm_jax.evaluation.results import Evaluation
from modessm_jax.evaluation.scoring import evaluate_run
from modessm_jax.models.build import Functional
from modessm_jax.runs.load import Run, load_run
from modessm_jax.text import Edits, percent, total
from studies.shared import difference, table

COLUMNS = ("run", "trials", "accuracy", "accuracy, tied by block", "chance")
WAYS = ("z inferred", "the other z", "z half and half", "trained without modes")


def truth(run: Run, evaluation: Evaluation) -> list[str]:
    """The true mode of every trial."""
    path = Path(run.config["data"]["root"]) / "truth.json"
    trials = [result.trial for result in evaluation.trials]
    if path.exists():
        modes = json.loads(path.read_text(encoding="utf-8"))
        return [modes[trial.session][str(trial.block)] for trial in trials]
    spoken: dict[str, set[str]] = defaultdict(set)
    for trial in trials:
        speaker, _, condition = trial.session.rpartition(".")
        spoken[speaker].add(condition)
    shared = set.intersection(*spoken.values())
    return [str(trial.session.rpartition(".")[2] in shared) for trial in trials]


def accuracy(posteriors: np.ndarray, labels: list[str]) -> float:
    """Accuracy of the likelier of two modes, under the better assignment of modes to labels."""
    names = sorted(set(labels))
    if len(names) != 2 or posteriors.shape[1] != 2:
        raise SystemExit(f"two modes and two labels are needed; the labels are {names}")
    right = float(np.mean((posteriors[:, 1] > 0.5) == (np.array(labels) == names[1])))
    return max(right, 1 - right)


def tied(posteriors: np.ndarray, evaluation: Evaluation) -> np.ndarray:
    """The normalised product of the posteriors of each trial's block."""
    blocks: dict[tuple[str, int], list[int]] = defaultdict(list)
    for row, result in enumerate(evaluation.trials):
        blocks[result.trial.session, result.trial.block].append(row)
    logs = np.log(np.maximum(posteriors, 1e-12))
    found = np.empty_like(logs)
    for rows in blocks.values():
        found[rows] = logs[rows].sum(axis=0)
    found -= found.max(axis=1, keepdims=True)
    return np.exp(found) / np.exp(found).sum(axis=1, keepdims=True)


def with_mode(model: Functional, modes: Any) -> Functional:
    """The model with its inferred posterior replaced by `modes(log_modes)`."""

    def apply(params: Any, features: Any, session: Any) -> Any:
        log_modes = model.apply(params, features, session).log_modes
        return model.apply(params, features, session, mode=modes(log_modes))

    return model._replace(apply=apply)


def rnnt_edits(run: Run) -> list[Edits]:
    """The edits of the transducer, for each validation trial."""
    return [result.rnnt_edits for result in evaluate_run(run, "val").trials]


def score(folder: Path, without: Path | None) -> tuple[list[str], list[list[Edits]]]:
    """One row of the table, and each trial's edits in each of `WAYS`."""
    run = load_run(folder)
    evaluation = evaluate_run(run, "val")
    if evaluation.trials[0].modes is None:
        raise SystemExit(f"{folder}: this model has no modes")
    posteriors = np.array([result.modes for result in evaluation.trials])
    labels = truth(run, evaluation)
    commonest = max(labels.count(name) for name in set(labels)) / len(labels)
    edits = [[result.rnnt_edits for result in evaluation.trials]]
    for modes in (
        lambda logs: jnp.exp(logs[:, ::-1]),
        lambda logs: jnp.full_like(logs, 0.5),
    ):
        edits.append(rnnt_edits(run._replace(functional=with_mode(run.functional, modes))))
    if without is not None:
        edits.append(rnnt_edits(load_run(without)))
    figures = [accuracy(posteriors, labels), accuracy(tied(posteriors, evaluation), labels)]
    rates = [total(of_trials).rate for of_trials in edits]
    return [folder.name, str(len(labels)), *map(percent, [*figures, commonest, *rates])], edits


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m studies.modes", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "runs", type=Path, nargs="+", metavar="RUN", help="folders of finished runs"
    )
    parser.add_argument(
        "--without", type=Path, nargs="+", metavar="RUN", help="the same, trained without modes"
    )
    parser.add_argument("--out", type=Path, required=True, help="path without suffix")
    options = parser.parse_args(arguments)
    without = options.without or [None] * len(options.runs)
    if len(without) != len(options.runs):
        parser.error(
            f"--without has {len(without)} runs for {len(options.runs)}; give one for each"
        )
    found = [score(*pair) for pair in zip(options.runs, without, strict=True)]
    ways = WAYS if options.without else WAYS[:-1]
    columns = [*COLUMNS, *(f"PER, {way}" for way in ways)]
    edits = [of_run for _, of_run in found]
    inferred, *others = zip(*edits, strict=True)  # each way's edits of every run
    lines = [
        f"- {ways[0]} less {way}: {difference(inferred, other)}"
        for way, other in zip(ways[1:], others, strict=True)
    ]
    head = "PER is the transducer's; differences are in points, below 0 where the mode helps."
    rows = table(columns, [cells for cells, _ in found])
    text = "\n".join(["# The latent mode against the truth", "", head, "", rows, "", *lines, ""])
    options.out.with_suffix(".md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
