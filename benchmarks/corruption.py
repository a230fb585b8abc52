"""Error rates of MODE-SSM on corrupted recordings, with and without its flow bridge.

    python -m benchmarks.corruption --out benchmarks/results/corruption RUN

Three levels of dropped channels, jitter and noise on the validation split, and none; and the
seconds that the bridge takes for each second of speech. Writes OUT.md.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

from modessm_jax.data.corruption import Corruption
from modessm_jax.sequence import Sequence
from modessm_jax.text import percent
from modessm_jax.training.evaluation import corrupted
from modessm_jax.training.runs import Run, evaluate_run, load_run

LEVELS = {
    "none": Corruption(),
    "light": Corruption(dropped=0.1, jitter=1, noise=0.25),
    "medium": Corruption(dropped=0.2, jitter=2, noise=0.5),
    "heavy": Corruption(dropped=0.4, jitter=3, noise=1.0),
}
BIN_SECONDS = 0.02


def rates(run: Run, level: str, **further: Any) -> tuple[float, float]:
    """CTC and RNN-T error rate of the validation split."""
    changed = run._replace(functional=corrupted(run.functional, LEVELS[level]))
    found = evaluate_run(changed, "val", **further).to_dict()
    return found["per"], found["rnnt_per"]


def cost(run: Run, rounds: int = 11) -> tuple[float, float]:
    """Median seconds of computing for each second of one trial of 10 s, without and with it."""
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


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.corruption", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of a finished run")
    parser.add_argument("--out", type=Path, required=True, help="path without suffix")
    options = parser.parse_args()
    run = load_run(options.run)
    lines = [
        "# Corrupted recordings, with and without the flow bridge", "",
        "| corruption | CTC PER | with the bridge | RNN-T PER | with the bridge |",
        "| --- | --- | --- | --- | --- |",
    ]  # fmt: skip
    for level, corruption in LEVELS.items():
        plain, mended = rates(run, level), rates(run, level, denoise=True)
        cells = [percent(x) for pair in zip(plain, mended, strict=True) for x in pair]
        terms = f"{corruption.dropped}, {corruption.jitter}, {corruption.noise}"
        lines.append(f"| {level} ({terms}) | " + " | ".join(cells) + " |")
        print(lines[-1], flush=True)
    without, using = cost(run)
    lines += [
        "", "In brackets: share of channels dropped, most bins of jitter, deviation of the noise.",
        f"For each second of speech the encoder computes {1e3 * without:.2f} ms, with the bridge "
        f"{1e3 * using:.2f} ms (one trial of 10 s, batch 1).", "",
    ]  # fmt: skip
    options.out.with_suffix(".md").write_text("\n".join(lines), encoding="utf-8")
    print("\n".join(lines[-3:]))


if __name__ == "__main__":
    main()
