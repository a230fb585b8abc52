"""Peak memory of one loss and its gradient, in a process of its own.

python -m benchmarks.losses.memory rnnt torchaudio 8 250 60 41
"""

import json
import subprocess
import sys
from typing import NamedTuple

from benchmarks.losses.problems import Kind, Shape, make


class Memory(NamedTuple):
    """Bytes."""

    peak: int | None  # rise of resident memory while it runs, results included
    temporary: int | None  # what XLA allocates beside arguments and results


def of(kind: Kind, name: str, shape: Shape) -> Memory:
    """Measures in a fresh process, which has this one's environment and processor."""
    command = [sys.executable, "-m", "benchmarks.losses.memory", kind, name, *map(str, shape)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return Memory(**json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    from benchmarks.losses.catalogue import build
    from benchmarks.losses.measure import peak_bytes

    kind, name = sys.argv[1:3]
    shape = Shape(*map(int, sys.argv[3:]))
    # Libraries load parts of themselves at the first call; that is not the loss's memory.
    build(kind, name, make(kind, Shape(2, 12, 4, shape.classes))).run()
    program = build(kind, name, make(kind, shape))
    print(json.dumps({"peak": peak_bytes(program.run), "temporary": program.temporary}))


if __name__ == "__main__":
    main()
