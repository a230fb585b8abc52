"""Does the flow bridge help? Error rates of MODE-SSM on corrupted recordings, with and without.

    python -m studies.corruption --out studies/results/corruption RUN [RUN ...]

The validation split is decoded at three levels of dropped channels, jitter and noise, and without.
Also measures the seconds that the bridge takes for each second of speech. Writes OUT.md.
"""

import argparse
import time
from pathlib import Path

import jax
import numpy as np

from modessm_jax.augmentation.augment import Corruption
from modessm_jax.evaluation.scoring import evaluate_run
from modessm_jax.runs.load import Run, load_run
from modessm_jax.sequence import Sequence
from modessm_jax.text import Edits, percent, total
from studies.shared import difference, table, together

LEVELS = {
    "none": Corruption(),
    "light": Corruption(dropped=0.1, jitter=1, noise=0.25),
    "medium": Corruption(dropped=0.2, jitter=2, noise=0.5),
    "heavy": Corruption(dropped=0.4, jitter=3, noise=1.0),
}
HEADS = ("CTC", "RNN-T")
BIN_SECONDS = 0.02


def edits(run: Run, level: str, *, denoise: bool) -> tuple[list[Edits], list[Edits]]:
    """The edits of CTC and of the transducer, for each validation trial."""
    trials = evaluate_run(run, "val", corruption=LEVELS[level], denoise=denoise).trials
    return [trial.edits for trial in trials], [trial.rnnt_edits for trial in trials]


def seconds_per_second(run: Run, rounds: int = 11) -> tuple[float, float]:
    """Median seconds to compute a second of speech, without the bridge and with it.

    Measured on one trial of 10 s.
    """
    bins = 500
    features = Sequence(
        np.random.default_rng(0).normal(size=(1, bins, run.channels)).astype(np.float32),
        np.ones((1, bins), bool),
    )
    session = np.zeros(1, np.int32)
    programs = [
        jax.jit(lambda p, x, s, d=denoise: run.functional.apply(p, x, s, denoise=d).logits)
        for denoise in (False, True)
    ]
    seconds = np.empty((rounds + 1, 2))
    for turn in range(rounds + 1):  # the first compiles
        for column, program in enumerate(programs):
            start = time.perf_counter()
            jax.block_until_ready(program(run.params, features, session))
            seconds[turn, column] = time.perf_counter() - start
    without, using = np.median(seconds[1:], axis=0) / (bins * BIN_SECONDS)
    return float(without), float(using)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m studies.corruption", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "runs", type=Path, nargs="+", metavar="RUN", help="folders of finished runs, one a seed"
    )
    parser.add_argument("--out", type=Path, required=True, help="path without suffix")
    options = parser.parse_args(arguments)
    runs = [load_run(folder) for folder in options.runs]
    columns = ["corruption"]
    for head in HEADS:
        columns += [f"{head} PER", "with the bridge", "difference"]
    rows = []
    for level, corruption in LEVELS.items():
        plain = [edits(run, level, denoise=False) for run in runs]
        denoised = [edits(run, level, denoise=True) for run in runs]
        terms = f"{corruption.dropped}, {corruption.jitter}, {corruption.noise}"
        rows.append([f"{level} ({terms})"])
        for head in range(len(HEADS)):
            without, using = ([seed[head] for seed in way] for way in (plain, denoised))
            rows[-1] += [percent(total(together(way)).rate) for way in (without, using)]
            rows[-1].append(difference(using, without))
        print(*rows[-1], sep=" | ", flush=True)
    without, using = seconds_per_second(runs[0])
    text = "\n".join([
        "# Corrupted recordings, with and without the flow bridge", "", table(columns, rows), "",
        f"{len(runs)} runs together: {', '.join(folder.name for folder in options.runs)}. "
        "Differences in points, below 0 where the bridge helps, with 95 % intervals over trials.",
        "In brackets: fraction of channels dropped, most bins of jitter, deviation of the noise.",
        f"For each second of speech the encoder computes {1e3 * without:.2f} ms, with the bridge "
        f"{1e3 * using:.2f} ms (one trial of 10 s, batch 1).", "",
    ])  # fmt: skip
    options.out.with_suffix(".md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
