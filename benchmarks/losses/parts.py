"""The parts of the benchmark: agreement, times and memory, growth, compilation."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import jax

from benchmarks.losses import memory, xla
from benchmarks.losses.catalogue import build, present
from benchmarks.losses.measure import Clock, Spread, difference, exponent, spread
from benchmarks.losses.memory import Memory
from benchmarks.losses.problems import Kind, Shape, make
from benchmarks.losses.xla import LOSSES, OURS, Program

SHAPES: dict[Kind, list[Shape]] = {
    "ctc": [Shape(64, 250, 60, 41), Shape(32, 500, 120, 41)],
    "rnnt": [Shape(4, 100, 30, 41), Shape(8, 250, 60, 41), Shape(16, 500, 100, 41)],
    "joint": [Shape(8, 250, 60, 41), Shape(16, 500, 100, 41)],
}
LARGE = Shape(64, 250, 60, 41)  # for memory only
RAGGED = Shape(5, 40, 12, 41)
GROWTH: dict[Kind, Shape] = {
    "ctc": Shape(16, 500, 30, 41),
    "rnnt": Shape(4, 125, 30, 41),
    "joint": Shape(4, 50, 30, 41),
}
# Where each axis starts; it grows from there by FACTORS.
STARTS: dict[Kind, Shape] = {
    "ctc": Shape(4, 125, 15, 20),
    "rnnt": Shape(1, 125, 15, 20),
    "joint": Shape(1, 30, 15, 20),
}
FACTORS = (1, 2, 4, 8, 16)
FRAMES = (50, 250, 1000, 4000)


@dataclass(frozen=True)
class Row:
    """One implementation at one shape, where measured."""

    kind: Kind
    shape: Shape
    name: str
    seconds: Spread | None = None
    ratio: Spread | None = None  # seconds over this package's, round by round
    memory: Memory = field(default=Memory(None, None))
    difference: float | None = None  # from this package's cost and gradients, relative


@dataclass(frozen=True)
class Growth:
    """Median seconds of this package's loss along one axis, the others held."""

    kind: Kind
    axis: str
    base: Shape
    sizes: list[int]
    seconds: list[float]

    @property
    def exponent(self) -> float:
        return exponent(self.sizes, self.seconds)


@dataclass
class Findings:
    """All that was measured so far."""

    about: dict[str, str] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)
    agreement: list[Row] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    growth: list[Growth] = field(default_factory=list)
    compilation: dict[tuple[Kind, str], dict[int, float]] = field(default_factory=dict)


def agreement(kind: Kind, shape: Shape = RAGGED) -> list[Row]:
    """Costs and gradients of all peers against this package's, on examples of unequal length."""
    problem = make(kind, shape, ragged=True)
    programs = {name: build(kind, name, problem) for name in present(kind, shape)}
    differences = _differences(programs)
    return [Row(kind, shape, name, difference=found) for name, found in differences.items()]


def _differences(programs: Mapping[str, Program]) -> dict[str, float]:
    results = {name: program.read(program.run()) for name, program in programs.items()}
    ours = results.pop(OURS)
    return {name: difference(found, ours) for name, found in results.items()}


def timing(
    kind: Kind,
    shape: Shape,
    programs: Mapping[str, Program],
    memory_of: Callable[[str], Memory],
    clock: Clock,
    rounds: int,
) -> list[Row]:
    """Seconds and memory of programs on the same problem; one of them is this package's."""
    differences = _differences(programs)  # also each program's first call
    seconds = clock.rounds({name: program.run for name, program in programs.items()}, rounds)
    return [
        Row(
            kind,
            shape,
            name,
            spread(samples),
            spread(samples / seconds[OURS]),
            memory_of(name),
            differences.get(name),
        )
        for name, samples in seconds.items()
    ]


def memory_only(kind: Kind, shape: Shape = LARGE) -> list[Row]:
    """Memory of the JAX losses where the others would not fit a small machine."""
    return [Row(kind, shape, name, memory=memory.of(kind, name, shape)) for name in LOSSES[kind]]


def growth(
    kind: Kind, base: Shape, starts: Shape, factors: Sequence[int], clock: Clock, rounds: int
) -> list[Growth]:
    """How this package's loss grows along each axis of its shape."""
    found = []
    for axis, start in starts._asdict().items():
        sizes = [start * factor for factor in factors]
        programs = {
            str(size): build(kind, OURS, make(kind, base._replace(**{axis: size})))
            for size in sizes
        }
        for program in programs.values():
            program.run()
        seconds = clock.rounds({size: program.run for size, program in programs.items()}, rounds)
        medians = [spread(seconds[str(size)]).median for size in sizes]
        found.append(Growth(kind, axis, base, sizes, medians))
    return found


def compilation(kind: Kind, frames: Sequence[int], repeats: int) -> dict[str, dict[int, float]]:
    """Median seconds to trace and compile each JAX loss at B = 8, U = 30 and growing T."""
    found: dict[str, dict[int, float]] = {name: {} for name in LOSSES[kind]}
    for count in frames:
        problem = make(kind, Shape(8, count, 30, 41))
        given = (problem.values, problem.ids, problem.frames, problem.labels)
        shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), given)
        for name, loss in LOSSES[kind].items():
            seconds = [xla.compilation(loss, shapes)[1] for _ in range(repeats)]
            found[name][count] = statistics.median(seconds)
    return found
