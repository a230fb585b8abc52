"""The state of training: what a step reads and replaces."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Int

from modessm_jax.runtime.mesh import replicated


@struct.dataclass
class TrainState:
    """The model and its optimiser after `step` updates."""

    step: Any  # int32 []
    begun: Any  # int32 []: the step with which the present stage began
    params: Any  # nested dict of float32 arrays
    ema: Any  # like params: their running average, or None
    opt_state: Any
    rate: Any  # float32 []: factor of the learning rate, below 1 in a run that has diverged


def by_path(tree: Any) -> dict[str, Any]:
    """The leaves of a tree by their path, such as "encoder/kernel", in the order of the tree."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def evaluation_params(of: Any) -> Any:
    """The parameters to evaluate and to decode with: the running average where one is kept.

    Args:
      of: a `TrainState` or the `Weights` of a checkpoint.
    """
    return of.params if of.ema is None else of.ema


def create_state(
    params: Any, optimizer: optax.GradientTransformation, mesh: Mesh, *, ema: bool
) -> TrainState:
    """The state before the first update, copied to every device of `mesh`.

    The arrays are copied: the training step donates its state, so buffers shared with `params`, or
    between the parameters and their average, would be deleted while still in use.

    Args:
      params: nested dict of float32 arrays.
      optimizer: initialised with these parameters.
      mesh: devices of the run.
      ema: whether to keep a running average of the parameters.

    Raises:
      ValueError: a parameter is not float32; half precision is for computation only.
    """
    create = _creator(params, optimizer, ema)
    source = jax.device_put(params, replicated(mesh))
    return jax.jit(create, out_shardings=replicated(mesh))(source)


def state_shapes(
    params: Any, optimizer: optax.GradientTransformation, mesh: Mesh, *, ema: bool
) -> TrainState:
    """What `create_state` makes, as `jax.ShapeDtypeStruct`: to restore into, for no memory.

    Raises:
      ValueError: as `create_state` does.
    """
    return shapes_of(jax.eval_shape(_creator(params, optimizer, ema), params), replicated(mesh))


def shapes_of(tree: Any, sharding: jax.sharding.Sharding) -> Any:
    """Shapes and types of arrays, or of anything with both, to load with a sharding."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree)


def _creator(
    params: Any, optimizer: optax.GradientTransformation, ema: bool
) -> Callable[[Any], TrainState]:
    for name, leaf in by_path(params).items():
        if leaf.dtype != jnp.float32:
            raise ValueError(f"parameter {name} is {leaf.dtype}; parameters must be float32")

    def create(params: Any) -> TrainState:
        params = jax.tree.map(jnp.copy, params)
        average = jax.tree.map(jnp.copy, params) if ema else None
        begin = jnp.zeros((), jnp.int32)
        rate = jnp.ones((), jnp.float32)
        return TrainState(begin, jnp.copy(begin), params, average, optimizer.init(params), rate)

    return create


def with_rate(state: TrainState, rate: float) -> TrainState:
    """The state with another factor of the learning rate."""
    return dataclasses.replace(state, rate=jax.device_put(np.float32(rate), state.rate.sharding))


@jax.jit
def all_finite(tree: Any) -> Bool[Array, ""]:
    """Whether a tree of arrays has no NaN and no infinity."""
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)]).all()


@jax.jit
def bit_sums(tree: Any) -> Any:
    """The sum of each array's bits, as a uint32 for each; of arrays with elements of 32 bits."""
    bits = jax.tree.map(lambda x: jax.lax.bitcast_convert_type(x, jnp.uint32), tree)
    return jax.tree.map(lambda x: x.sum(dtype=jnp.uint32), bits)


def averaged(ema: Any, params: Any, updates: Int[Array, ""], decay: float) -> Any:
    """Exponential moving average of the parameters.

    The decay is `min(decay, (1 + t) / (10 + t))` after `t` updates, so that the average follows the
    parameters closely at first and the initial values soon have no weight.
    """
    t = updates.astype(jnp.float32)
    d = jnp.minimum(decay, (1.0 + t) / (10.0 + t))
    return jax.tree.map(lambda old, new: d * old + (1.0 - d) * new, ema, params)
