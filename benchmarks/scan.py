"""Time and memory of the state-space recurrence in chunks, against frame by frame, by length.

    python -m benchmarks.scan --out benchmarks/results/scan
    python -m benchmarks.scan --out runs/scan --heads 4 --width 32 --state 32 --rounds 5

The defaults are a layer of the full-size encoder (d 512, expanded twice). Lengths are those of
`LENGTHS`; the forms take turns. Memory is what XLA sets aside for a program beyond its arguments
and results. Writes OUT.md and OUT.png. Fails if the gradients of the forms differ.
"""

import argparse
import platform
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from modessm_jax.blocks.ssm import CHUNK, selective_scan

LENGTHS = (256, 1024, 4096)
CHUNKS = (CHUNK // 2, CHUNK, 2 * CHUNK)
COLUMNS = (
    "form", "frames", "forward and back, ms", "quartiles", "against a quarter of the frames",
    "memory, MiB",
)  # fmt: skip


def frame_by_frame(
    x: jax.Array, log_decay: jax.Array, b: jax.Array, c: jax.Array, state: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The recurrence as it is written down; `selective_scan` has the shapes."""

    def advance(h: jax.Array, frame: tuple[jax.Array, ...]) -> tuple[jax.Array, jax.Array]:
        x, log_decay, b, c = frame
        h = jnp.exp(log_decay)[..., None, None] * h + x[..., None] * b[:, None, None, :]
        return h, jnp.einsum("bhpn,bn->bhp", h, c)

    frames = [jnp.moveaxis(part, 1, 0) for part in (x, log_decay, b, c)]
    state, y = jax.lax.scan(advance, state, tuple(frames))
    return jnp.moveaxis(y, 0, 1), state


def in_chunks(
    x: jax.Array, log_decay: jax.Array, b: jax.Array, c: jax.Array, state: jax.Array, *, chunk: int
) -> tuple[jax.Array, jax.Array]:
    """This package's scan, without padding."""
    return selective_scan(x, log_decay, b, c, jnp.ones(x.shape[:2], bool), state, chunk=chunk)


FORMS: dict[str, Callable[..., Any]] = {
    "frame by frame": frame_by_frame,
    **{f"chunks of {chunk}": partial(in_chunks, chunk=chunk) for chunk in CHUNKS},
}


class Row(NamedTuple):
    """One form at one length: seconds as quartiles (lower, median, upper), and MiB."""

    form: str
    frames: int
    seconds: tuple[float, float, float]
    memory: float


def inputs(frames: int, options: argparse.Namespace) -> list[jax.Array]:
    """Random x, log_decay, b, c and first state; decays of step sizes 0.001 to 0.1, rate 4."""
    batch, heads, width, state = options.batch, options.heads, options.width, options.state
    rng = np.random.default_rng(0)
    log_decay = -4 * np.exp(rng.uniform(np.log(1e-3), np.log(1e-1), (batch, frames, heads)))
    shapes = [(batch, frames, heads, width), (batch, frames, state), (batch, frames, state)]
    x, b, c = (rng.normal(size=shape) for shape in shapes)
    arrays = [x, log_decay, b, c, np.zeros((batch, heads, width, state))]
    return [jnp.asarray(array, jnp.float32) for array in arrays]


def program(form: Callable[..., Any], arrays: list[jax.Array]) -> jax.stages.Compiled:
    """The gradients of a scalar of the outputs by all inputs."""

    def scalar(*arrays: jax.Array) -> jax.Array:
        return jnp.mean(jnp.sin(form(*arrays)[0]))

    return jax.jit(jax.grad(scalar, argnums=tuple(range(5)))).lower(*arrays).compile()


def check(programs: dict[str, jax.stages.Compiled], arrays: list[jax.Array]) -> None:
    """The first run of each program, all of whose gradients must agree."""
    found = [jax.device_get(call(*arrays)) for call in programs.values()]
    for grads in found[1:]:
        for a, b in zip(grads, found[0], strict=True):
            apart = np.max(np.abs(a - b)) / np.max(np.abs(b))
            if not apart < 1e-2:  # matrix products on a GPU round to TF32
                raise SystemExit(f"gradients of the forms are {apart:.1e} apart")


def measure(frames: int, options: argparse.Namespace) -> list[Row]:
    """All forms at one length, taking turns."""
    arrays = inputs(frames, options)
    programs = {name: program(form, arrays) for name, form in FORMS.items()}
    check(programs, arrays)
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    for _ in range(options.rounds):
        for name, call in programs.items():
            start = time.perf_counter()
            jax.block_until_ready(call(*arrays))
            seconds[name].append(time.perf_counter() - start)
    rows = []
    for name, call in programs.items():
        lower, median, upper = np.percentile(seconds[name], [25, 50, 75]).tolist()
        memory = call.memory_analysis()
        assert memory is not None
        mebibytes = memory.temp_size_in_bytes / 2**20
        rows.append(Row(name, frames, (lower, median, upper), mebibytes))
    return rows


def table(rows: list[Row]) -> str:
    """A markdown table, each length set against the one before it, four times shorter."""
    found = {(row.form, row.frames): row.seconds[1] for row in rows}
    lines = [list(COLUMNS), ["---"] * len(COLUMNS)]
    for row in sorted(rows, key=lambda row: list(FORMS).index(row.form)):
        lower, median, upper = (1e3 * quartile for quartile in row.seconds)
        shorter = found.get((row.form, row.frames // 4))
        ratio = "" if shorter is None else f"{row.seconds[1] / shorter:.1f}"
        spread = f"{lower:.1f} to {upper:.1f}"
        lines.append(
            [row.form, str(row.frames), f"{median:.1f}", spread, ratio, f"{row.memory:.1f}"]
        )
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def draw(path: Path, rows: list[Row]) -> None:
    """Time and memory against length on logarithmic axes: linear growth is a line of slope 1."""
    figure = Figure(figsize=(8, 3.6), dpi=100, layout="constrained")
    timing, memory = figure.subplots(1, 2)
    for name in FORMS:
        own = [row for row in rows if row.form == name]
        frames = [row.frames for row in own]
        lower, median, upper = (1e3 * np.array([row.seconds for row in own])).T
        spread = [median - lower, upper - median]
        timing.errorbar(frames, median, spread, marker="o", markersize=3, capsize=2, label=name)
        memory.plot(frames, [row.memory for row in own], marker="o", markersize=3, label=name)
    timing.set_title("forward and back, ms", fontsize=11)
    memory.set_title("memory, MiB", fontsize=11)
    for axes in (timing, memory):
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set_xticks(LENGTHS, [str(frames) for frames in LENGTHS])
        axes.set_xlabel("frames")
        axes.grid(color="#eeeeee")
    timing.legend(fontsize=8, frameon=False)
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scan", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--out", type=Path, required=True, help="path without suffix")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--heads", type=int, default=16)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--state", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=11, help="samples of each time")
    options = parser.parse_args()
    rows = [row for frames in LENGTHS for row in measure(frames, options)]
    device = jax.devices()[0]
    kind = platform.machine() if device.platform == "cpu" else device.device_kind
    about = (
        f"{device.platform} ({kind}), jax {jax.__version__}: batch {options.batch}, "
        f"{options.heads} heads of width {options.width}, state {options.state}, float32; "
        f"median and quartiles of {options.rounds} rounds.\n\n"
    )
    options.out.with_suffix(".md").write_text(about + table(rows), encoding="utf-8")
    draw(options.out.with_suffix(".png"), rows)
    print(about + table(rows))


if __name__ == "__main__":
    main()
