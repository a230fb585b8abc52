"""The cost of one step of recalibration without labels: seconds on one core, by method and size.

    python -m benchmarks.recalibration --out benchmarks/results/recalibration.md

An untrained GRU decoder of 512 channels (`configs/gru.py`, its :demo and its full size, which T15's
official baseline has) takes one gradient step after the other on the adapter, each for a trial of
six seconds. Compilation is left out. Writes the table to --out.
"""

import argparse
from pathlib import Path

# ruff: noqa: E402
from benchmarks.losses.processor import about, pin

pin(1)  # before JAX counts the cores

import jax
import numpy as np

from configs.gru import get_config
from modessm_jax.phonemes import SILENCE
from modessm_jax.recalibration.adapter import adapter_of
from modessm_jax.recalibration.unlabelled import METHODS, STATISTICS, Options, Recalibrator
from modessm_jax.runs.load import Run, build_model
from studies.shared import table

BINS, CHANNELS, SPOKEN = 300, 512, 20
SIZES = {"demo": 60, "": 12}  # variants of the config, and the steps measured


def measure(variant: str, method: str, steps: int) -> list[float]:
    """Milliseconds of each step."""
    config = get_config(variant)
    config.update({"augment": {"time_masks": 4}, "model": {"dtype": "float32"}})
    plain = config.to_dict()
    functional = build_model(plain, CHANNELS, 1)
    params = functional.params
    # Certain of one phoneme, as no step is made of trials without any or without certainty.
    params["head"]["bias"] = params["head"]["bias"].at[1].set(8.0)
    run = Run(plain, {"day": 0}, CHANNELS, functional, params, 0)
    label = [1 + n % 38 if n % 4 else SILENCE for n in range(SPOKEN)]
    recalibrator = Recalibrator(run, Options(method=method, window=10**6), lambda _: label)
    recalibrator.begin(jax.tree.map(np.asarray, adapter_of(run.params, 0)))
    rng = np.random.default_rng(0)
    found = []
    for _ in range(steps + 2):
        features = rng.normal(size=(BINS, CHANNELS)).astype(np.float32)
        update = recalibrator(features)
        if update.loss is None:
            raise SystemExit(f"{method}: no step was made")
        found.append(1e3 * update.seconds)
    return found[2:]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.recalibration", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--out", type=Path, help="file for the table")
    parser.add_argument("--steps", type=int, help="of each size, if not 60 and 12")
    options = parser.parse_args(arguments)
    rows = []
    for variant, steps in SIZES.items():
        for method in METHODS:
            if method == STATISTICS:
                continue
            found = measure(variant, method, options.steps or steps)
            middle, late = np.quantile(found, [0.5, 0.95])
            rows.append([f"gru:{variant}".rstrip(":"), method, f"{middle:.1f}", f"{late:.1f}"])
            print(" ".join(rows[-1]), flush=True)
    found = table(["model", "method", "p50, ms", "p95, ms"], rows)
    if options.out is not None:
        machine = f"{about()['processor']}, one core, jax {jax.__version__}"
        options.out.write_text(f"{found}\n\n{machine}\n", encoding="utf-8")
    print(found)


if __name__ == "__main__":
    main()
