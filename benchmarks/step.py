"""A training step with this package's CTC loss against one with optax's, on the small recipe.

    python -m benchmarks.step --out benchmarks/results/step

One process; the two steps take turns on the same batch, of the size of spoken digits. Writes
OUT.md.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks import paired
from benchmarks.losses.measure import Spread, spread
from benchmarks.recipe import first_step, random_batch
from configs.multiscale import get_config
from modessm_jax.data.batches import Batch
from modessm_jax.losses.cost import Cost
from modessm_jax.losses.ctc import ctc_cost, feasible
from modessm_jax.runs.load import build_model
from modessm_jax.runtime.mesh import data_mesh
from modessm_jax.sequence import Sequence
from modessm_jax.training import objectives
from modessm_jax.training.step import shard_batch

BINS, CHANNELS, SESSIONS, LABELS = 168, 48, 6, 32


def digits_batch(config: dict[str, Any]) -> Batch:
    """Random trials, as large as a batch of spoken digits."""
    rows = config["data"]["batch_size"]
    return random_batch([BINS] * rows, CHANNELS, SESSIONS, LABELS)


def optax_cost(logits: Sequence, labels: Sequence) -> Cost:
    """optax's CTC loss, with the signature of `ctc_cost`."""
    nats = optax.ctc_loss(
        logits.values,
        (~logits.mask).astype(jnp.float32),
        labels.values,
        (~labels.mask).astype(jnp.float32),
    )
    return Cost(nats, feasible(logits, labels))


def build(config: dict[str, Any], cost: Any) -> tuple[Any, Any]:
    """The step with this CTC loss, and its first state."""
    model = build_model(config, CHANNELS, SESSIONS)
    mesh = data_mesh(jax.devices()[:1])
    objectives.ctc_cost = cost  # looked up by this name when the step is traced
    step, state = first_step(config, model, mesh, ema_decay=0.99)
    placed = shard_batch(digits_batch(config), mesh)
    state, _ = jax.block_until_ready(step(state, placed))
    return lambda state: step(state, placed), state


def measure(rounds: int) -> dict[str, Spread]:
    """Seconds of a step with each loss, and their ratio round by round."""
    config = get_config("small").to_dict()
    built = {name: build(config, cost) for name, cost in
             (("optax", optax_cost), ("modessm_jax", ctc_cost))}  # fmt: skip
    seconds: dict[str, list[float]] = {name: [] for name in built}
    states = {name: state for name, (_, state) in built.items()}
    for _ in range(rounds):
        for name, (step, _) in built.items():
            start = time.perf_counter()
            states[name], _ = jax.block_until_ready(step(states[name]))
            seconds[name].append(time.perf_counter() - start)
    found = {name: np.array(values) for name, values in seconds.items()}
    spreads = {name: spread(values) for name, values in found.items()}
    return {**spreads, "ratio": spread(found["optax"] / found["modessm_jax"])}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.step", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--out", type=Path, required=True, help="path without suffix")
    options = parser.parse_args()
    names = {name: f"step with CTC of {name}" for name in ("optax", "modessm_jax")}
    paired.write(options.out, "small recipe, one step", names, measure(options.rounds))


if __name__ == "__main__":
    main()
