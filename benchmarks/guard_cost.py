"""The time that the guards take: a training step of the small recipe with them and without.

    python -m benchmarks.guard_cost --out benchmarks/results/guard_cost

One process; the two steps take turns on the same batch, as large as one of spoken digits. The
guarded step selects between the new state and the old, and its metrics are fetched and judged,
divergence included. The plain step applies the update, and its metrics are fetched. Before every
evaluation and every save the loop also checks that the whole state (parameters, average,
optimiser's state) is finite. This check is timed in every round, and `1 / eval_every +
1 / save_every` of it, by the recipe, is added to the guarded step. Times are processor time, which
other processes do not change; give it one core (`taskset -c 0`). Writes OUT.md.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks import paired
from benchmarks.losses.measure import Spread, spread
from benchmarks.recipe import first_step
from benchmarks.step import CHANNELS, SESSIONS, digits_batch
from configs.multiscale import get_config
from modessm_jax.runs.history import History
from modessm_jax.runs.load import build_model
from modessm_jax.runs.state import TrainState, all_finite
from modessm_jax.runtime.mesh import data_mesh
from modessm_jax.training import step as training
from modessm_jax.training.guard import Guard
from modessm_jax.training.settings import GuardSettings

Judge = Callable[[int, Any], Any]


def build(config: dict[str, Any], *, guarded: bool) -> tuple[Any, TrainState, Judge]:
    """A compiled step, its first state, and the function that judges its metrics."""
    model = build_model(config, CHANNELS, SESSIONS)
    mesh = data_mesh(jax.devices()[:1])
    choose = training._choose
    if not guarded:
        training._choose = lambda finite, new, old: new  # looked up when the step is traced
    step, state = first_step(config, model, mesh, ema_decay=0.99)
    placed = training.shard_batch(digits_batch(config), mesh)
    state, _ = jax.block_until_ready(step(state, placed))
    training._choose = choose
    judge = Guard(GuardSettings(**{**config["guard"], "divergence": True}), History()).judge
    return (
        lambda state: step(state, placed),
        state,
        judge if guarded else lambda number, scalars: None,
    )


def measure(rounds: int) -> dict[str, Spread]:
    """Processor seconds of each step and of a check, and the ratio of the steps by round."""
    config = get_config("small").to_dict()
    every = config["training"]
    checks = 1 / every["eval_every"] + 1 / every["save_every"]  # a step
    built = {name: build(config, guarded=name == "guarded") for name in ("plain", "guarded")}
    seconds: dict[str, list[float]] = {name: [] for name in (*built, "judge", "check")}
    states = {name: state for name, (_, state, _) in built.items()}
    bool(_finite(states["guarded"]))
    for number in range(rounds):
        names = list(built) if number % 2 else list(built)[::-1]
        for name in names:
            step, _, judge = built[name]
            start = time.process_time()
            states[name], report = step(states[name])
            scalars = jax.device_get(report).scalars
            judged = time.process_time()
            judge(number, scalars)
            end = time.process_time()
            seconds[name].append(end - start)
            if name == "guarded":
                seconds["judge"].append(end - judged)
                bool(_finite(states[name]))
                seconds["check"].append(time.process_time() - end)
                seconds[name][-1] += checks * seconds["check"][-1]
    found = {name: np.array(values) for name, values in seconds.items()}
    spreads = {name: spread(values) for name, values in found.items()}
    return {**spreads, "ratio": spread(found["guarded"] / found["plain"])}


def _finite(state: TrainState) -> Any:
    """The check that the loop makes before it evaluates or saves."""
    return all_finite((state.params, state.ema, state.opt_state))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.guard_cost", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--rounds", type=int, default=101)
    parser.add_argument("--out", type=Path, required=True, help="path without suffix")
    options = parser.parse_args()
    names = {
        "plain": "step without guards",
        "guarded": "step with guards",
        "judge": "of this, judging its metrics",
        "check": "one check of the whole state",
    }
    paired.write(options.out, "small recipe, one step", names, measure(options.rounds))


if __name__ == "__main__":
    main()
