"""AdamW behind a clipped gradient, on a warmed-up cosine schedule."""

from typing import Any

import jax
import optax

# Shifts and gains of any rank: a bias of shape [sessions, channels] is as much a bias as one of
# shape [channels].
_UNDECAYED_NAMES = ("bias", "scale", "offset")


def decayed(params: Any) -> Any:
    """Marks the parameters that weight decay pulls towards zero.

    Not decayed are leaves with fewer than two axes (biases, norms, single vectors), and leaves of
    any rank that are named for a shift or a gain: "bias", "scale" or "offset", alone or as the end
    of a name such as "query_bias". All others are decayed, convolution kernels, embeddings and
    per-session maps included: a map that should stay near the identity is to be stored as its
    difference from the identity.

    Args:
      params: nested dict of arrays.

    Returns:
      The same structure holding True where decay applies.
    """

    def rule(path: tuple[Any, ...], leaf: Any) -> bool:
        name = str(getattr(path[-1], "key", "")) if path else ""
        return leaf.ndim > 1 and not name.lower().endswith(_UNDECAYED_NAMES)

    return jax.tree_util.tree_map_with_path(rule, params)


def make_optimizer(
    *,
    peak_lr: float,
    end_lr: float,
    warmup_steps: int,
    clip_norm: float,
    weight_decay: float,
    b1: float,
    b2: float,
    eps: float,
    steps: int,
) -> tuple[optax.GradientTransformation, optax.Schedule]:
    """`clip_by_global_norm`, then AdamW under `warmup_cosine_decay_schedule`.

    The first of the `steps` updates is made at `peak_lr / (warmup_steps + 1)` rather than at 0,
    where it would be wasted; update number `warmup_steps` (from 0) is at `peak_lr`, and the last
    update, number `steps - 1`, at `end_lr`.

    Args:
      peak_lr: learning rate after the warm-up.
      end_lr: learning rate of the last update.
      warmup_steps: updates before the peak.
      clip_norm: greatest global norm of the gradient that is passed on.
      weight_decay: decoupled decay (Loshchilov and Hutter 2019) of the leaves `decayed` names.
      b1: decay of Adam's first moment.
      b2: decay of Adam's second moment.
      eps: added to the root of Adam's second moment.
      steps: updates of the whole run.

    Returns:
      The gradient transformation, and its schedule from the count of updates made so far.

    Raises:
      ValueError: the numbers describe no such schedule.
    """
    if not 0.0 <= end_lr <= peak_lr or peak_lr <= 0.0:
        raise ValueError(
            f"optimizer: peak_lr is {peak_lr} and end_lr {end_lr}; need 0 < peak_lr >= end_lr >= 0"
        )
    if not 0 <= warmup_steps < steps - 1:
        raise ValueError(
            f"optimizer.warmup_steps is {warmup_steps} but the run has {steps} steps; "
            f"need 0 <= warmup_steps < steps - 1"
        )
    if clip_norm <= 0.0:
        raise ValueError(f"optimizer.clip_norm is {clip_norm}; it must be positive")
    schedule = optax.warmup_cosine_decay_schedule(
        init_value=peak_lr / (warmup_steps + 1),
        peak_value=peak_lr,
        warmup_steps=warmup_steps,
        decay_steps=steps - 1,
        end_value=end_lr,
    )
    chain = optax.chain(
        optax.clip_by_global_norm(clip_norm),
        optax.adamw(schedule, b1, b2, eps, weight_decay=weight_decay, mask=decayed),
    )
    return chain, schedule
