"""Data parallelism: batches are split over the devices, everything else is copied to each."""

from collections.abc import Sequence
from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

DATA_AXIS = "data"


def data_mesh(devices: Sequence[Any] | None = None) -> Mesh:
    """One axis over `devices` (all of them by default), along which batches are split.

    The axis is of type Auto: XLA chooses the sharding of intermediate results, so a model runs
    unchanged on any number of devices.
    """
    devices = jax.devices() if devices is None else devices
    return jax.make_mesh((len(devices),), (DATA_AXIS,), (AxisType.Auto,), devices=devices)


def split_batch(tree: Any, mesh: Mesh) -> Any:
    """Arrays on the devices, split along their first axis.

    Args:
      tree: of arrays in host memory, the same in every process. A process copies to its own devices
        what these need.
      mesh: from `data_mesh`.
    """
    sharding = split_over_batch(mesh)
    if sharding.is_fully_addressable:
        return jax.device_put(tree, sharding)

    def split(x: Any) -> jax.Array:
        return jax.make_array_from_callback(x.shape, sharding, x.__getitem__)

    with jax.transfer_guard("allow"):  # JAX counts this as an implicit transfer
        return jax.tree.map(split, tree)


def replicated(mesh: Mesh) -> NamedSharding:
    """Sharding of parameters, optimiser state and metrics: the whole array on every device."""
    return NamedSharding(mesh, PartitionSpec())


def split_over_batch(mesh: Mesh) -> NamedSharding:
    """Sharding of a batch: its first axis is split over the devices."""
    return NamedSharding(mesh, PartitionSpec(DATA_AXIS))


def split_over_second_axis(mesh: Mesh) -> NamedSharding:
    """Sharding of micro-batches stacked along a first axis: each is split over the devices."""
    return NamedSharding(mesh, PartitionSpec(None, DATA_AXIS))
