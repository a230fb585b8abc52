"""One process of a run that several make; `test_processes` starts them.

    python -m tests.runtime.one_of_several WORKDIR PLACE SEED [STEP]

A process given a STEP asks to be stopped after it. Status 75: ended early, and saved.
"""

import sys
from pathlib import Path

import grain
import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from configs import common
from modessm_jax.runtime.compile_cache import compile_cache
from modessm_jax.runtime.lock import in_use
from modessm_jax.runtime.preemption import EXIT_STATUS, PreemptedError, Preemption
from modessm_jax.runtime.processes import broadcast_from_first, join, only_first_prints
from modessm_jax.training.loop import train
from tests import toy

STEPS = 6


class Source:
    def __len__(self):
        return 100

    def __getitem__(self, index):
        return toy.batch_of(index)


def configuration(seed: int) -> ConfigDict:
    training = dict(
        steps=STEPS, accumulate=2, ema_decay=0.9, seed=seed, log_every=1, eval_every=2,
        save_every=2, keep=2, select_by="per",
    )  # fmt: skip
    return ConfigDict(
        {
            "optimizer": toy.OPTIMIZER,
            "objective": {"normalize_by": "frames", "weights": {"phoneme": 1.0}},
            "training": training,
            "guard": common.guard(),
        }
    )


def run(workdir: Path, seed: int, stop_after: int | None = None) -> dict:
    norm = jax.jit(lambda params: sum(jnp.abs(x).sum() for x in jax.tree.leaves(params)))
    cache = compile_cache(workdir.parent / "compiled")
    with in_use(workdir), cache, Preemption() as preemption:

        def stop(step: int) -> bool:
            if step == stop_after:
                preemption._requested.set()
            return preemption.reached(step)

        return train(
            configuration(seed),
            workdir,
            apply=toy.apply,
            params=jax.eval_shape(toy.initial_params),
            init=toy.initial_params,
            batches=iter(grain.MapDataset.source(Source()).to_iter_dataset()),
            evaluate=lambda params, stage: {"per": float(norm(params))},
            trial_name=str,
            dataset={},
            augment=toy.augment,
            stop=stop,
        )


def main(workdir: str, place: str, seed: str, *stop_after: str) -> None:
    join(place)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    assert broadcast_from_first(lambda: jax.process_index()) == 0
    try:
        with only_first_prints():
            run(Path(workdir), int(seed), *map(int, stop_after))
    except PreemptedError:
        raise SystemExit(EXIT_STATUS) from None


if __name__ == "__main__":
    main(*sys.argv[1:])
