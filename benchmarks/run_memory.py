"""What a run keeps on the device: at its start, while it trains, as it resumes and after.

    python -m benchmarks.run_memory --data_root DATA --config configs/multiscale.py:small ...

A run is to hold its parameters, AdamW's two moments and the running average, and nothing else; the
gradient is there only within a step. Each line gives bytes as a multiple of those of the
parameters. "beside" is what is held while a checkpoint is read.
"""

import argparse
import contextlib
import importlib.util
import tempfile
from pathlib import Path
from typing import Any

import jax

from modessm_jax.runs import checkpoints
from modessm_jax.runtime.preemption import PreemptedError
from modessm_jax.training import job

STEPS = 3


def live() -> int:
    """Bytes of all arrays on the devices."""
    return sum(array.nbytes for array in jax.live_arrays())


def measure(config: Any) -> dict[str, float]:
    """The multiples, by moment."""
    found: dict[str, int] = {}
    read = checkpoints.load

    def watched(*args: Any) -> Any:
        found["beside"] = max(found.get("beside", 0), live())
        return read(*args)

    def stop_at_start(done: int) -> bool:
        found[{0: "start", STEPS: "training"}.get(done, "")] = live()
        return done == STEPS

    def stop_again(done: int) -> bool:
        found["resumed"] = live()
        return True

    checkpoints.load = watched
    with tempfile.TemporaryDirectory() as workdir:
        for stop in (stop_at_start, stop_again):
            with contextlib.suppress(PreemptedError):
                job.run(config, Path(workdir), stop=stop)
        weights = checkpoints.load_weights(Path(workdir) / "checkpoints", None)
    checkpoints.load = read
    found.pop("", None)
    one = sum(leaf.nbytes for leaf in jax.tree.leaves(weights.params))
    return {"parameters": one, **{name: size / one for name, size in found.items()}}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run_memory", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--data_root", required=True)
    parser.add_argument("--config", nargs="+", required=True)
    options = parser.parse_args()
    for name in options.config:
        path, _, variant = name.partition(":")
        spec: Any = importlib.util.spec_from_file_location("recipe", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        config = module.get_config(variant)
        config.data.root = options.data_root
        figures = measure(config)
        print(name, "  ".join(f"{k} {v:.3f}" for k, v in figures.items()), flush=True)


if __name__ == "__main__":
    main()
