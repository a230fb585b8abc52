"""AdamW behind a clipped gradient, on a warmed-up cosine schedule."""

import functools
from collections.abc import Collection
from typing import Any

import jax
import jax.numpy as jnp
import optax

from modessm_jax.runs.sessions import LAYERS

# Shifts and gains of any rank: a bias of shape [sessions, channels] is as much a bias as one of
# shape [channels].
_UNDECAYED_NAMES = ("bias", "scale", "offset", "shift")


def decayed(params: Any, sessions: bool = True) -> Any:
    """Marks the parameters that weight decay pulls towards zero.

    Not decayed are leaves with fewer than two axes (biases, norms, single vectors), and leaves of
    any rank that are named for a shift or a gain: "bias", "scale", "offset" or "shift", alone or as
    the end of a name such as "query_bias". All others are decayed, convolution kernels, embeddings
    and per-session maps included: a map that should stay near the identity is to be stored as its
    difference from the identity.
    Without `sessions`, the session layers are not decayed either.

    The result has the structure of `params` and is True where decay applies.
    """

    def rule(path: tuple[Any, ...], leaf: Any) -> bool:
        name = str(getattr(path[-1], "key", "")) if path else ""
        plain = not name.lower().endswith(_UNDECAYED_NAMES)
        return leaf.ndim > 1 and plain and (sessions or not _of_sessions(path))

    return jax.tree_util.tree_map_with_path(rule, params)


def _of_sessions(path: tuple[Any, ...]) -> bool:
    return bool(path) and str(getattr(path[0], "key", "")) == LAYERS


def _session_layers(params: Any) -> Any:
    return jax.tree_util.tree_map_with_path(lambda path, _: _of_sessions(path), params)


def make_schedule(
    *, peak_lr: float, end_lr: float, warmup_steps: int, steps: int
) -> optax.Schedule:
    """`warmup_cosine_decay_schedule`, from the count of updates made so far.

    The first of the `steps` updates is made at `peak_lr / (warmup_steps + 1)` rather than at 0,
    where it would be wasted; update number `warmup_steps` (from 0) is at `peak_lr`, and the last
    update, number `steps - 1`, at `end_lr`.

    Raises:
      ValueError: the numbers describe no such schedule.
    """
    if not 0.0 <= end_lr <= peak_lr or peak_lr <= 0.0:
        raise ValueError(
            f"peak_lr is {peak_lr} and end_lr {end_lr}; need 0 < peak_lr >= end_lr >= 0"
        )
    if not 0 <= warmup_steps < steps - 1:
        raise ValueError(
            f"warmup_steps is {warmup_steps} but there are {steps} steps; "
            f"need 0 <= warmup_steps < steps - 1"
        )
    return optax.warmup_cosine_decay_schedule(
        init_value=peak_lr / (warmup_steps + 1),
        peak_value=peak_lr,
        warmup_steps=warmup_steps,
        decay_steps=steps - 1,
        end_value=end_lr,
    )


def make_optimizer(
    *,
    clip_norm: float,
    weight_decay: float,
    b1: float,
    b2: float,
    eps: float,
    session_rate: float = 1.0,
    decay_sessions: bool = True,
    groups: Any = "",
    active: Collection[str] = ("",),
) -> optax.GradientTransformation:
    """`clip_by_global_norm`, then AdamW at a learning rate of 1, which the step scales.

    Each group of parameters has a state of its own, count of updates included, so that one which
    begins later has its moments corrected for its own age. A group that is not active keeps its
    state and its parameters. The structure of the state is the same whichever groups are active.

    Args:
      clip_norm: greatest global norm of the gradient that is passed on.
      weight_decay: decoupled decay (Loshchilov and Hutter 2019) of the leaves `decayed` names.
      b1: decay of Adam's first moment.
      b2: decay of Adam's second moment.
      eps: added to the root of Adam's second moment.
      session_rate: factor of the learning rate of the session layers.
      decay_sessions: whether the session layers are decayed.
      groups: the name of each parameter's group, a tree like the parameters or a prefix of it.
      active: the groups that are updated; the gradient of all others must be zero.

    Raises:
      ValueError: a number that AdamW has no use for.
    """
    positive = {"clip_norm": clip_norm, "eps": eps, "session_rate": session_rate}
    for name, value in positive.items():
        if not value > 0.0:
            raise ValueError(f"optimizer.{name} is {value}; it must be positive")
    for name, value in (("b1", b1), ("b2", b2)):
        if not 0.0 <= value < 1.0:
            raise ValueError(f"optimizer.{name} is {value}; it must lie in [0, 1)")
    if not weight_decay >= 0.0:
        raise ValueError(f"optimizer.weight_decay is {weight_decay}; it may not be negative")
    decay = functools.partial(decayed, sessions=decay_sessions)
    adamw = optax.adamw(1.0, b1, b2, eps, weight_decay=weight_decay, mask=decay)
    if session_rate != 1.0:  # else the state would have one level more than that of earlier runs
        adamw = optax.chain(adamw, optax.masked(optax.scale(session_rate), _session_layers))

    def rest(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        del params
        return jax.tree.map(jnp.zeros_like, updates), state

    resting = optax.GradientTransformation(adamw.init, rest)
    # In an order that is the same in every process, or a restart would find no program compiled.
    names = sorted(set(jax.tree.leaves(groups)))
    inner = {name: adamw if name in active else resting for name in names}
    return optax.chain(optax.clip_by_global_norm(clip_norm), optax.partition(inner, groups))
