"""Where arrays live: batches are split over the devices, everything else is copied to each."""

from collections.abc import Sequence
from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

DATA_AXIS = "data"


def data_mesh(devices: Sequence[Any] | None = None) -> Mesh:
    """One axis over `devices` (all of them by default), along which batches are split.

    The axis is of type Auto: XLA places the intermediate results, so a model, and optax's losses,
    run unchanged on any number of devices.
    """
    devices = jax.devices() if devices is None else devices
    return jax.make_mesh((len(devices),), (DATA_AXIS,), (AxisType.Auto,), devices=devices)


def divide(tree: Any, mesh: Mesh) -> Any:
    """Arrays in host memory, the same in every process, divided along their first axis.

    A process places what its own devices need.
    """
    sharding = split_over_batch(mesh)
    if sharding.is_fully_addressable:
        return jax.device_put(tree, sharding)

    def place(x: Any) -> jax.Array:
        return jax.make_array_from_callback(x.shape, sharding, x.__getitem__)

    with jax.transfer_guard("allow"):  # JAX takes this for a transfer by accident
        return jax.tree.map(place, tree)


def replicated(mesh: Mesh) -> NamedSharding:
    """The whole array on every device: parameters, optimiser state, metrics."""
    return NamedSharding(mesh, PartitionSpec())


def split_over_batch(mesh: Mesh) -> NamedSharding:
    """The first axis, the batch, divided among the devices."""
    return NamedSharding(mesh, PartitionSpec(DATA_AXIS))


def split_over_second_axis(mesh: Mesh) -> NamedSharding:
    """Micro-batches stacked along a first axis, each of them divided among the devices."""
    return NamedSharding(mesh, PartitionSpec(None, DATA_AXIS))
