"""One optimiser step of the full-size recipe on this machine: parameters, memory, seconds.

    python -m benchmarks.full_size

Two trials of 600 bins and 512 channels, 45 sessions, as T15 has them. Fails if a parameter has no
gradient.
"""

import resource
import time

import jax
import numpy as np

from configs.multiscale import get_config
from modessm_jax.data.augment import Augmentation
from modessm_jax.data.batches import Batch
from modessm_jax.runs.load import build_model
from modessm_jax.runs.state import create_state
from modessm_jax.runtime.mesh import data_mesh
from modessm_jax.sequence import Sequence
from modessm_jax.training.stages import plan_stages
from modessm_jax.training.step import StepSpec, make_step, shard_batch

ROWS, BINS, CHANNELS, SESSIONS, LABELS = 2, 600, 512, 45, 40


def batch() -> Batch:
    """Random features and labels; the second trial is shorter."""
    random = np.random.default_rng(0)
    features = random.normal(size=(ROWS, BINS, CHANNELS)).astype(np.float32)
    ids = random.integers(1, 41, (ROWS, LABELS)).astype(np.int32)
    mask = np.arange(BINS)[None, :] < np.array([[BINS], [BINS - 100]])
    return Batch(
        Sequence(features, mask),
        Sequence(ids, np.ones_like(ids, bool)),
        np.arange(ROWS, dtype=np.int32),
        np.zeros(ROWS, np.int32),
        np.arange(ROWS, dtype=np.int32),
    )


def main() -> None:
    config = get_config().to_dict()
    model = build_model(config, CHANNELS, SESSIONS)
    print(f"parameters: {sum(leaf.size for leaf in jax.tree.leaves(model.params)):,}")
    mesh = data_mesh(jax.devices()[:1])
    plan = plan_stages(config, model.params)[0]
    ema_decay = config["training"]["ema_decay"]
    spec = StepSpec(
        model.apply,
        config["objective"]["normalize_by"],
        seed=0,
        mesh=mesh,
        augment=Augmentation(**config["augment"]),
        ema_decay=ema_decay,
    )
    step = make_step(spec, plan)
    state = create_state(model.params, plan.optimizer, mesh, ema=ema_decay > 0)
    placed = shard_batch(batch(), mesh)
    start = time.perf_counter()
    program = step.lower(state, placed).compile()
    print(f"compilation: {time.perf_counter() - start:.1f} s")
    start = time.perf_counter()
    state, report = jax.block_until_ready(program(state, placed))
    print(f"one step, {ROWS} trials of {BINS} bins: {time.perf_counter() - start:.1f} s")
    print(f"loss {report.scalars['loss']:.3f}, gradient norm {report.scalars['gradient_norm']:.3f}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"peak memory of the process: {peak:.2f} GiB")
    # After one step Adam's first moment is (1 - b1) times the clipped gradient.
    moments = next(part.mu for part in jax.tree.leaves(state.opt_state, is_leaf=_is_adam)
                   if _is_adam(part))  # fmt: skip
    leaves = jax.tree.leaves_with_path(moments)
    dead = [jax.tree_util.keystr(path) for path, leaf in leaves if not np.any(np.asarray(leaf))]
    print(f"parameter arrays without a gradient: {len(dead)} of {len(leaves)} {dead}")
    if dead:
        raise SystemExit(1)


def _is_adam(node: object) -> bool:
    return hasattr(node, "mu")


if __name__ == "__main__":
    main()
