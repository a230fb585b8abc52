"""One step of each causal model on one trial, as it would run live: 80 ms of new bins."""

from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.gpu_check import programs
from benchmarks.gpu_check.steps import CHANNELS, RECIPES, SESSIONS
from benchmarks.losses.report import table
from modessm_jax.models.build import build
from modessm_jax.sequence import Sequence

SIZES = {"multiscale": ("small", ""), "modessm": ("small", "")}


def main() -> None:
    smoke = programs.parser(__doc__).parse_args().smoke
    rows = []
    for recipe, variants in SIZES.items():
        for variant in variants[:1] if smoke else variants:
            config = RECIPES[recipe].get_config(variant).to_dict()["model"] | {"causal": True}
            chunk = max(config["strides"]) if recipe == "multiscale" else config["stride"]
            if recipe == "multiscale":
                config |= {"chunk": chunk, "left": 30 * chunk}
            model = build(config, channels=CHANNELS, sessions=SESSIONS, hides_bins=True, seed=0)
            steps: Any = model.steps
            state = steps.initial_state(model.params, 1)
            bins = Sequence(jnp.ones((1, chunk, CHANNELS)), jnp.ones((1, chunk), bool))

            @jax.jit
            def step(params, state, bins, steps=steps):
                state, outputs = steps.step(params, state, bins, jnp.zeros((1,), jnp.int32))
                return state, outputs.logits["phoneme"].values

            with programs.alone():
                found = programs.times(
                    lambda p=model.params, s=state, b=bins, f=step: jax.block_until_ready(
                        f(p, s, b)
                    ),
                    rounds=11 if smoke else 101,
                )
            rows.append((recipe, variant or "full", str(chunk), programs.milliseconds(found)))
    print(table(("model", "size", "bins a step", "ms, median and quartiles"), rows))


if __name__ == "__main__":
    main()
