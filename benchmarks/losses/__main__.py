"""Time and memory of every loss and its gradient, against every peer that can be imported.

    python -m benchmarks.losses all --out OUT
    python -m benchmarks.losses ctc rnnt --threads 2 --out OUT
    python -m benchmarks.losses gpu --out OUT

One process on as many cores as threads; all implementations of a loss take turns on the same
problem. Lengths are full. `ctc`, `rnnt`, `joint`, `growth` and `compile` are the parts of `all`;
`gpu`, alone, needs a CUDA device for both JAX and torch. Writes OUT.md and OUT.png. Peers that pip
cannot install have to be built by hand: fast_rnnt, optimized_transducer, and warp-transducer's
library, which the variable WARPRNNT names (see `benchmarks.losses.warp`).
"""

import argparse
import os
import sys
from collections.abc import Collection
from functools import partial
from pathlib import Path

from benchmarks.losses import processor
from benchmarks.losses.problems import Kind

KINDS: tuple[Kind, ...] = ("ctc", "rnnt", "joint")
PARTS = (*KINDS, "growth", "compile")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.losses", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("part", nargs="+", choices=["all", *PARTS, "gpu"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=11, help="samples of each time")
    parser.add_argument("--out", type=Path, required=True, help="path without suffix")
    options = parser.parse_args()
    if "gpu" in options.part:
        if options.part != ["gpu"]:
            parser.error("the part gpu cannot be combined with others")
        os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"  # torch needs some of the memory
        from benchmarks.losses import gpu

        sys.exit(gpu.main(options.out, options.rounds))
    processor.pin(options.threads)
    chosen = PARTS if "all" in options.part else options.part
    measure(chosen, options.threads, options.rounds, options.out)


def measure(chosen: Collection[str], threads: int, rounds: int, out: Path) -> None:
    """Runs the chosen parts, and writes the findings after each."""
    from benchmarks.losses import catalogue, memory, parts, report
    from benchmarks.losses.measure import Clock

    clock = Clock()
    findings = parts.Findings(absent=catalogue.absent())

    def save() -> None:
        findings.about = processor.about() | {
            "threads": str(threads),
            "samples of each time": str(rounds),
            "measured time in which another process had the core": f"{clock.stolen:.1%}",
        }
        report.write(out, findings)

    for kind in KINDS:
        if kind not in chosen:
            continue
        findings.agreement += parts.agreement(kind)
        for shape in parts.SHAPES[kind]:
            print(kind, shape, file=sys.stderr)
            problem = parts.make(kind, shape)
            programs = {
                name: catalogue.build(kind, name, problem)
                for name in catalogue.present(kind, shape)
            }
            of = partial(memory.of, kind, shape=shape)
            findings.rows += parts.timing(kind, shape, programs, of, clock, rounds)
            save()
        if kind == "joint":
            findings.rows += parts.memory_only(kind)
    if "growth" in chosen:
        for kind, base in parts.GROWTH.items():
            print("growth", kind, file=sys.stderr)
            start = parts.STARTS[kind]
            findings.growth += parts.growth(kind, base, start, parts.FACTORS, clock, rounds)
            save()
    if "compile" in chosen:
        for kind in parts.SHAPES:
            print("compile", kind, file=sys.stderr)
            for name, seconds in parts.compilation(kind, parts.FRAMES, repeats=3).items():
                findings.compilation[kind, name] = seconds
    save()
    print(out.with_suffix(".md").read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
