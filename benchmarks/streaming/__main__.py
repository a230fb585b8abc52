"""The stream of a trained decoder: whether it equals decoding whole trials, and how fast it is.

    python -m benchmarks.streaming equality --workdir RUN --lexicon LEXICON --lm LM
    python -m benchmarks.streaming latency --size demo --core 0 --out benchmarks/results/streaming
    python -m benchmarks.streaming latency --workdir RUN --lexicon LEXICON --lm LM --core 0

`equality` pushes every val trial of each run in random pieces of 1 to 40 bins. It fails if a
log-probability differs by more than 2e-5, or if phonemes, words or times differ at all. `latency`
pushes 80 ms of input 7,500 times, ten minutes of recording, on one core: to the recipes with their
first weights, or to runs, with their val trials, where a search for words is realistic.
"""

import argparse
import os
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks.losses.report import table
from benchmarks.streaming import equality, latency

TOLERANCE = 2e-5
SIZES = {"demo": "demo", "full": ""}
OPTIONS = ("lexicon", "lm", "beam", "lm_weight", "word_score")


def main() -> None:
    given = _parser().parse_args()
    if given.core is not None:
        os.sched_setaffinity(0, {given.core})  # before JAX computes anything
    options = {name: getattr(given, name) for name in OPTIONS}
    words = {name: value for name, value in options.items() if value is not None}
    text = (_equality if given.what == "equality" else _latency)(given, words)
    print(text)
    if given.out is not None:
        given.out.with_suffix(".md").write_text(text + "\n", encoding="utf-8")


def _equality(given: argparse.Namespace, words: dict[str, Any]) -> str:
    rows, equal = [], True
    for workdir in given.workdir:
        found = equality.compare(
            workdir,
            most=given.most,
            trials=given.trials,
            seed=given.seed,
            head=given.head,
            width=given.width,
            **words,
        )
        equal &= found.largest <= TOLERANCE and not found.differ.total()
        counts = (found.trials, found.frames, found.phonemes, found.words)
        differ = ", ".join(f"{name} {count}" for name, count in found.differ.items())
        search = given.head + f", width {given.width}" * (given.width > 1)
        rows.append(
            (workdir.name, search, *(f"{n:,}" for n in counts), f"{found.largest:.1e}", differ)
        )
    columns = ("run", "head", "trials", "frames", "phonemes", "words", "largest difference")
    text = table((*columns, "trials that differ"), rows)
    if not equal:
        raise SystemExit(text + "\n\nthe streams do not equal the whole trials")
    return text


def _latency(given: argparse.Namespace, words: dict[str, Any]) -> str:
    rows = []
    for name, made in _decoders(given, words):
        decoder, trials = made
        found = latency.measure(decoder, trials, given.steps)
        rows += [
            (name, part, *_milliseconds(values))
            for part, values in (
                ("model's step", found.model),
                ("search", found.search),
                ("push, in all", found.total),
                ("the same, CPU time", found.processor),
                ("end of a sentence", found.finish),
            )
        ]
    columns = ("model", "part", "p50", "p95", "p99", "largest")
    about = f"{given.steps:,} pushes of 80 ms each, milliseconds; {_machine(given.core)}"
    return f"{about}\n\n{table(columns, rows)}"


def _decoders(
    given: argparse.Namespace, words: dict[str, Any]
) -> Iterator[tuple[str, tuple[Any, Any]]]:
    for workdir in given.workdir:
        options = {"head": given.head, "width": given.width, **words}
        yield f"{workdir.name}, {given.head}", latency.trained(workdir, **options)
    for size in given.size:
        for name in given.models:
            heads = ("ctc", "rnnt") if name == "modessm" else ("ctc",)
            for head in heads:
                made = latency.untrained(name, SIZES[size], head)
                yield f"{name}, {size}, {head}", made


def _milliseconds(seconds: np.ndarray) -> list[str]:
    points = [*np.percentile(seconds, (50, 95, 99)), seconds.max()]
    return [f"{1e3 * value:.2f}" for value in points]


def _machine(core: int | None) -> str:
    cores = "all cores" if core is None else "one core"
    load = os.getloadavg()[0]
    return (
        f"{platform.machine()}, {cores}, JAX {jax.__version__}, load of the machine {load:.1f} "
        "when it ended"
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.streaming",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )

    def add(name: str, what: str, **further: Any) -> None:
        parser.add_argument(name, help=what, **further)

    add("what", "what to do", choices=("equality", "latency"))
    add("--workdir", "runs of causal models", type=Path, nargs="+", default=[])
    add("--head", "head of the runs (ctc)", choices=("ctc", "rnnt"), default="ctc")
    add("--width", "beam of the transducer's phonemes (1: greedy)", type=int, default=1)
    add("--lexicon", "words to recognise (none)", type=Path)
    add("--lm", "n-gram, ARPA or KenLM binary (none)", type=Path)
    add("--beam", "hypotheses of the word search", type=int)
    add("--lm_weight", "factor of the n-gram's log-probability", type=float)
    add("--word_score", "nats added for each word", type=float)
    add("--most", "bins of the largest piece (40)", type=int, default=40)
    add("--trials", "to compare at most (all)", type=int)
    add("--seed", "of the pieces (0)", type=int, default=0)
    add("--size", "sizes of the recipes to time (none)", choices=(*SIZES,), nargs="+", default=[])
    recipes = (*latency.RECIPES,)
    add("--models", "recipes to time (all)", choices=recipes, nargs="+", default=recipes)
    add("--steps", "pushes to time (7500)", type=int, default=7500)
    add("--core", "the one to run on (all)", type=int)
    add("--out", "path of the table without suffix (none)", type=Path)
    return parser


if __name__ == "__main__":
    main()
