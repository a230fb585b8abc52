"""Relative positions: the buckets of T5, and a bias that depends on distance alone."""

import numpy as np
import pytest
from flax import nnx

from modessm_jax.models.attention import (
    BUCKETS,
    MAX_DISTANCE,
    RelativeAttention,
    RelativeBias,
    relative_buckets,
)


def test_buckets_are_exact_near_and_monotone_far() -> None:
    near = relative_buckets(np.arange(-7, 8))
    assert len(set(near.tolist())) == 15, "near distances share a bucket"
    for side in (np.arange(0, 500), -np.arange(1, 500)):
        found = relative_buckets(side)
        assert (np.diff(found[1:]) >= 0).all()
        assert found.min() >= 0 and found.max() < BUCKETS
    assert relative_buckets(np.array([MAX_DISTANCE])) == relative_buckets(np.array([10_000]))
    assert relative_buckets(np.array([3])) != relative_buckets(np.array([-3]))


@pytest.mark.parametrize(("queries", "keys", "offset"), [(5, 5, 0), (1, 4, -3), (3, 7, -4)])
def test_bias_is_the_table_at_the_distance(queries: int, keys: int, offset: int) -> None:
    bias = RelativeBias(2, rngs=nnx.Rngs(0))
    table = np.asarray(bias.table[...])
    found = np.asarray(bias(queries, keys, offset))
    assert found.shape == (2, queries, keys)
    for q in range(queries):
        for k in range(keys):
            bucket = relative_buckets(np.array([k + offset - q]))[0]
            np.testing.assert_array_equal(found[:, q, k], table[bucket])


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(ValueError, match="multiple of heads"):
        RelativeAttention(6, 4, chunk=None, left=0, dtype=np.float32, rngs=nnx.Rngs(0))
