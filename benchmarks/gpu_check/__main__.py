"""Checks and times this package on one GPU in minutes, and writes one table of all it found.

    python -m benchmarks.gpu_check --out benchmarks/results/gpu.md
    python -m benchmarks.gpu_check --smoke --out smoke.md

Needs the checkout, its dependencies and, for the comparisons, a torch that sees the GPU. Each part
is a process of its own with a time limit; where one fails, the table says how, and the others go
on. Parts that compile at the same time take turns on the GPU while they measure. `--smoke` runs the
same parts at toy sizes on the CPU. Exits with status 1 if a part failed.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from benchmarks.gpu_check import programs

TAIL = 1500  # characters of the output of a part that failed


class Part(NamedTuple):
    """A process that prints Markdown: `python -m MODULE ARGUMENTS`."""

    title: str
    module: str
    arguments: tuple[str, ...] = ()
    seconds: float = 180.0  # then it is stopped


class Found(NamedTuple):
    """What a part printed, and how it ended."""

    part: Part
    text: str
    failure: str  # empty where it did not fail
    seconds: float


def step(recipe: str, batch: int) -> Part:
    title = f"Training step of {recipe}, batch {batch}"
    return Part(title, "benchmarks.gpu_check.steps", (recipe, str(batch)), 210)


def waves(smoke: bool) -> Sequence[Sequence[Part]]:
    """The parts; those of a wave run at the same time."""
    checks = "benchmarks.gpu_check"
    sizes = (
        {"multiscale": (2,), "modessm": (2,)}
        if smoke
        else {"multiscale": (16, 64), "modessm": (64,)}
    )
    steps = [step(recipe, batch) for recipe, batches in sizes.items() for batch in batches]
    return (
        (
            Part("The device", f"{checks}.device", seconds=60),
            Part("Losses against torch and torchaudio", f"{checks}.losses", seconds=150),
        ),
        (
            *steps,
            Part("Training step of torch's GRU and Transformer", f"{checks}.torch_step"),
            Part("Streaming", f"{checks}.streaming"),
        ),
        (
            Part("Tests in full float32", f"{checks}.suite", ("highest",), 190),
            Part("Tests with TF32", f"{checks}.suite", ("default",), 190),
            Part("Training the demo", f"{checks}.training", ("train",), 190),
            Part("Resume after a kill", f"{checks}.training", ("resume",), 190),
        ),
    )  # fmt: skip


def run(part: Part, smoke: bool, environment: dict[str, str]) -> Found:
    """Runs a part to its end, or to its time limit; what it had printed by then is kept."""
    command = [sys.executable, "-m", part.module, *part.arguments, *["--smoke"] * smoke]
    start = time.monotonic()
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            command, stdout=out, stderr=errors, env=environment, start_new_session=True
        )
        try:
            status: int | None = process.wait(part.seconds)
        except subprocess.TimeoutExpired:
            programs.kill_group(process)
            status = None
        text, problem = (programs.contents(stream) for stream in (out, errors))
    failure = ""
    if status is None:
        failure = f"stopped after {part.seconds:.0f} s"
    elif status:
        failure = f"exit status {status}"
    if failure:
        failure += f"\n\n```\n{problem[-TAIL:]}\n```"
    return Found(part, text, failure, time.monotonic() - start)


def outcome(failure: str) -> str:
    """One line on how a part ended."""
    return failure.splitlines()[0] if failure else "ran"


def report(found: Sequence[Found]) -> str:
    """The findings of all parts as Markdown."""
    lines = ["# GPU check", "", "| part | outcome | s |", "|---|---|---|"]
    for part, _, failure, seconds in found:
        lines.append(
            f"| {part.title} | {failure.splitlines()[0] if failure else 'ran'} | {seconds:.0f} |"
        )
    for part, text, failure, _ in found:
        lines += ["", f"## {part.title}", ""]
        lines += [f"FAILED: {failure}", ""] if failure else []
        lines += [text.strip()]
    return "\n".join(lines) + "\n"


def main(
    arguments: Sequence[str] | None = None,
    of: Callable[[bool], Sequence[Sequence[Part]]] = waves,
) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu_check", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--out", type=Path, required=True, help="Markdown file")
    parser.add_argument("--smoke", action="store_true", help="toy sizes, on the CPU")
    options = parser.parse_args(arguments)
    found: list[Found] = []
    with tempfile.TemporaryDirectory() as shared:
        environment = programs.environment(options.smoke, Path(shared))
        for parts in of(options.smoke):
            at_once = 1 if (os.cpu_count() or 1) < 8 else len(parts)
            with ThreadPoolExecutor(at_once) as pool:
                jobs = [pool.submit(run, part, options.smoke, environment) for part in parts]
                for job in jobs:
                    found.append(job.result())
                    print(f"{found[-1].part.title}: {outcome(found[-1].failure)}", flush=True)
                    options.out.write_text(report(found), encoding="utf-8")
    print(report(found))
    sys.exit(any(item.failure for item in found))


if __name__ == "__main__":
    main()
