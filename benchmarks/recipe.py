"""A training step of a recipe on random trials, as several benchmarks time or compare it."""

from typing import Any

import numpy as np
from jax.sharding import Mesh

from modessm_jax.augmentation.augment import Augmentation
from modessm_jax.data.batches import Batch
from modessm_jax.models.build import Functional
from modessm_jax.runs.state import TrainState, create_state
from modessm_jax.sequence import Sequence
from modessm_jax.training.stages import plan_stages
from modessm_jax.training.step import StepSpec, make_step


def random_batch(lengths: list[int], channels: int, sessions: int, labels: int) -> Batch:
    """Normally distributed features and random labels, a trial of each length, in bins."""
    random = np.random.default_rng(0)
    rows, bins = len(lengths), max(lengths)
    mask = np.arange(bins)[None, :] < np.array(lengths)[:, None]
    features = random.normal(size=(rows, bins, channels)).astype(np.float32)
    ids = random.integers(1, 41, (rows, labels)).astype(np.int32)
    return Batch(
        Sequence(np.where(mask[..., None], features, 0).astype(np.float32), mask),
        Sequence(ids, np.ones_like(ids, bool)),
        (np.arange(rows) % sessions).astype(np.int32),
        np.zeros(rows, np.int32),
        np.arange(rows, dtype=np.int32),
    )


def first_step(
    config: dict[str, Any], model: Functional, mesh: Mesh, *, ema_decay: float
) -> tuple[Any, TrainState]:
    """The jitted step of the recipe's first stage, and the state before it."""
    plan = plan_stages(config, model.params)[0]
    spec = StepSpec(
        model.apply,
        config["objective"]["normalize_by"],
        seed=0,
        mesh=mesh,
        augment=Augmentation(**config["augment"]),
        ema_decay=ema_decay,
    )
    state = create_state(model.params, plan.optimizer, mesh, ema=ema_decay > 0)
    return make_step(spec, plan), state
