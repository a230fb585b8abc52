"""Where arrays land on four pretend devices."""

import jax
import numpy as np
from jax.sharding import AxisType

from modessm_jax.runtime.mesh import (
    data_mesh,
    replicated,
    split_batch,
    split_over_batch,
    split_over_second_axis,
)

X = np.arange(24, dtype=np.float32).reshape(8, 3)


def pieces(x: jax.Array) -> list[np.ndarray]:
    return [np.asarray(shard.data) for shard in x.addressable_shards]


def test_a_mesh_is_of_all_devices_unless_some_are_named() -> None:
    mesh = data_mesh()
    assert mesh.size == len(jax.devices()) == 4
    assert mesh.axis_types == (AxisType.Auto,)
    assert data_mesh(jax.devices()[1:3]).devices.tolist() == jax.devices()[1:3]


def test_batches_are_divided_in_order_and_everything_else_is_everywhere() -> None:
    mesh = data_mesh()
    found = split_batch({"x": X, "rows": np.arange(8)}, mesh)
    np.testing.assert_array_equal(found["x"], X)
    for n, (rows, part) in enumerate(zip(pieces(found["rows"]), pieces(found["x"]), strict=True)):
        assert rows.tolist() == [2 * n, 2 * n + 1]
        np.testing.assert_array_equal(part, X[2 * n : 2 * n + 2])
    assert found["x"].sharding == split_over_batch(mesh)
    for part in pieces(jax.device_put(X, replicated(mesh))):
        np.testing.assert_array_equal(part, X)


def test_micro_batches_are_divided_within_each() -> None:
    stacked = np.stack([X, X + 100])
    parts = pieces(jax.device_put(stacked, split_over_second_axis(data_mesh())))
    assert [part.shape for part in parts] == [(2, 2, 3)] * 4
    np.testing.assert_array_equal(parts[1], stacked[:, 2:4])
