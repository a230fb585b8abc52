"""One optimiser step of the full-size recipe on this machine: parameters, memory, seconds.

    python -m benchmarks.full_size

Two trials of 600 and 500 bins and 512 channels, 45 sessions, as T15 has them. Fails if a parameter
has no gradient.
"""

import resource
import time

import jax
import numpy as np

from benchmarks.recipe import first_step, random_batch
from configs.multiscale import get_config
from modessm_jax.runs.load import build_model
from modessm_jax.runtime.mesh import data_mesh
from modessm_jax.training.step import shard_batch

LENGTHS, CHANNELS, SESSIONS, LABELS = [600, 500], 512, 45, 40


def main() -> None:
    config = get_config().to_dict()
    model = build_model(config, CHANNELS, SESSIONS)
    print(f"parameters: {sum(leaf.size for leaf in jax.tree.leaves(model.params)):,}")
    mesh = data_mesh(jax.devices()[:1])
    step, state = first_step(config, model, mesh, ema_decay=config["training"]["ema_decay"])
    placed = shard_batch(random_batch(LENGTHS, CHANNELS, SESSIONS, LABELS), mesh)
    start = time.perf_counter()
    program = step.lower(state, placed).compile()
    print(f"compilation: {time.perf_counter() - start:.1f} s")
    start = time.perf_counter()
    state, report = jax.block_until_ready(program(state, placed))
    print(f"one step, trials of {LENGTHS} bins: {time.perf_counter() - start:.1f} s")
    print(f"loss {report.scalars['loss']:.3f}, gradient norm {report.scalars['gradient_norm']:.3f}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"peak memory of the process: {peak:.2f} GiB")
    # After one step Adam's first moment is (1 - b1) times the clipped gradient.
    parts = jax.tree.leaves(state.opt_state, is_leaf=lambda part: hasattr(part, "mu"))
    moments = next(part.mu for part in parts if hasattr(part, "mu"))
    leaves = jax.tree.leaves_with_path(moments)
    dead = [jax.tree_util.keystr(path) for path, leaf in leaves if not np.any(np.asarray(leaf))]
    print(f"parameter arrays without a gradient: {len(dead)} of {len(leaves)} {dead}")
    if dead:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
