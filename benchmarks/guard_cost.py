"""What the guards cost a healthy run: the small recipe's step with and without, paired.

    python -m benchmarks.guard_cost --out benchmarks/results/guard_cost

One process; the two take turns on the same batch, of the size of spoken digits. "Guarded" selects
between the new state and the old, fetches the figures and judges them, divergence included; the
other applies the update and fetches the figures. Before every evaluation and before every save the
loop also checks that the whole state (parameters, average, optimiser's state) is finite; a check is
measured in every round, and of its seconds `1 / eval_every + 1 / save_every`, by the recipe, are
counted to the guarded step of the round. Seconds are those of the processor, so that other
processes do not count; give it one core (`taskset -c 0`). Writes OUT.md.
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
from benchmarks.step import CHANNELS, SESSIONS, batch
from configs.multiscale import get_config
from modessm_jax.data.augment import Augmentation
from modessm_jax.runs.history import History
from modessm_jax.runs.load import build_model
from modessm_jax.runs.state import TrainState, all_finite, create_state
from modessm_jax.runtime.mesh import data_mesh
from modessm_jax.training import step as training
from modessm_jax.training.guard import Guard
from modessm_jax.training.settings import GuardSettings
from modessm_jax.training.stages import plan_stages

Judge = Callable[[int, Any], Any]


def build(config: dict[str, Any], *, guarded: bool) -> tuple[Any, TrainState, Judge]:
    """A compiled step, its first state, and what is done with its figures."""
    model = build_model(config, CHANNELS, SESSIONS)
    mesh = data_mesh(jax.devices()[:1])
    plan = plan_stages(config, model.params)[0]
    choose = training._choose
    if not guarded:
        training._choose = lambda finite, new, old: new  # the step calls it when it is traced
    spec = training.StepSpec(
        model.apply, config["objective"]["normalize_by"], seed=0, mesh=mesh,
        augment=Augmentation(**config["augment"]), ema_decay=0.99,
    )  # fmt: skip
    step = training.make_step(spec, plan)
    state = create_state(model.params, plan.optimizer, mesh, ema=True)
    placed = training.shard_batch(batch(config["data"]["batch_size"]), mesh)
    state, _ = jax.block_until_ready(step(state, placed))
    training._choose = choose
    judge = Guard(GuardSettings(**{**config["guard"], "divergence": True}), History()).judge
    return (
        lambda state: step(state, placed),
        state,
        judge if guarded else lambda number, scalars: None,
    )


def measure(rounds: int) -> dict[str, Spread]:
    """Processor seconds of a step of each kind and of a check, and the steps' ratio by round."""
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
    """As `loop` asks before it evaluates or saves."""
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
        "judge": "of this, judging its figures",
        "check": "one check of the whole state",
    }
    paired.write(options.out, "small recipe, one step", names, measure(options.rounds))


if __name__ == "__main__":
    main()
