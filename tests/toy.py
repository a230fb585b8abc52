"""A model of two matrices and synthetic batches, for the tests of training."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from modessm_jax.data.batches import Batch
from modessm_jax.models.outputs import Outputs
from modessm_jax.sequence import Sequence
from modessm_jax.training.stages import StagePlan, plan_stages

CHANNELS, WIDTH, CLASSES, SESSIONS = 5, 8, 41, 3
ROWS, BINS, LABELS = 8, 24, 4
OPTIMIZER: dict[str, Any] = dict(
    peak_lr=1e-2,
    end_lr=1e-4,
    warmup_steps=2,
    clip_norm=1.0,
    weight_decay=1e-2,
    b1=0.9,
    b2=0.99,
    eps=1e-8,
)


def initial_params(seed: int = 0) -> dict:
    keys = jax.random.split(jax.random.key(seed), 4)
    return {
        "encoder": {
            "kernel": 0.3 * jax.random.normal(keys[0], (CHANNELS, WIDTH)),
            "bias": jnp.zeros(WIDTH),
        },
        "session": {"offset": 0.1 * jax.random.normal(keys[1], (SESSIONS, WIDTH))},
        "phoneme": {"kernel": 0.3 * jax.random.normal(keys[2], (WIDTH, CLASSES))},
        "interctc": {"kernel": 0.3 * jax.random.normal(keys[3], (WIDTH, CLASSES))},
        "mask": {"embedding": jnp.zeros((1, CHANNELS))},
    }


def plan(
    weights: Mapping[str, float] = MappingProxyType({"phoneme": 1.0}),
    params: Any = None,
    steps: int = 10,
    **optimizer: Any,
) -> StagePlan:
    """The only stage of a run."""
    config = {
        "optimizer": {**OPTIMIZER, **optimizer},
        "objective": {"weights": dict(weights)},
        "training": {"steps": steps, "select_by": "per"},
    }
    return plan_stages(config, initial_params() if params is None else params)[0]


def apply(params, features, session, hidden, key) -> Outputs:
    """Halves the frames; drops a quarter of the hidden units where a key is given."""
    x = features.masked().values
    x = jnp.where(hidden[:, :, None], params["mask"]["embedding"][None], x)
    x = (x * features.expanded_mask())[:, ::2]
    x = x @ params["encoder"]["kernel"] + params["encoder"]["bias"][None, None, :]
    x = jnp.tanh(x + params["session"]["offset"][session][:, None, :])
    if key is not None:
        x = jnp.where(jax.random.bernoulli(key, 0.75, x.shape), x / 0.75, 0.0)
    mask = features.mask[:, ::2]
    return Outputs(
        Sequence(x, mask),
        {n: Sequence(x @ params[n]["kernel"], mask) for n in ("phoneme", "interctc")},
        {"norm": jnp.abs(x).mean(axis=(1, 2))},
    )


def apply_without_dropout(params, features, session, hidden, key) -> Outputs:
    del key
    return apply(params, features, session, hidden, None)


def augment(features: Sequence, key, views: int = 1) -> tuple[Sequence, jax.Array]:
    """Noise, and one hidden frame in eight."""
    features = jax.tree.map(lambda x: jnp.repeat(x, views, axis=0), features)
    noise_key, mask_key = jax.random.split(key)
    noise = 0.1 * jax.random.normal(noise_key, features.values.shape)
    hidden = jax.random.bernoulli(mask_key, 0.125, features.mask.shape)
    return features.with_values(features.values + noise), hidden & features.mask


def batch_of(index: int, rows: int = ROWS, bins: int = BINS) -> Batch:
    """Trials of unequal length; the same index gives the same batch."""
    rng = np.random.default_rng(index)
    lengths = rng.integers(bins // 2, bins + 1, rows)
    counts = rng.integers(1, LABELS + 1, rows)
    labels = rng.integers(1, CLASSES, (rows, LABELS)).astype(np.int32)
    return Batch(
        features=Sequence(
            rng.normal(size=(rows, bins, CHANNELS)).astype(np.float32),
            np.arange(bins)[None] < lengths[:, None],
        ),
        labels=Sequence(labels, np.arange(LABELS)[None] < counts[:, None]),
        session=rng.integers(0, SESSIONS, rows).astype(np.int32),
        block=np.arange(rows, dtype=np.int32) // 2,
        trial=(index * rows + np.arange(rows)).astype(np.int32),
    )
