"""Greedy decoding against the definition."""

import itertools

import jax.numpy as jnp
import numpy as np

from modessm_jax.decoding.greedy import greedy, to_lists
from modessm_jax.sequence import Sequence


def path_logits(paths: list[list[int]], frames: int, classes: int, fill: float) -> Sequence:
    """Logits whose best class is the given path in each frame, `fill` in the padding."""
    values = np.full((len(paths), frames, classes), fill, np.float32)
    for row, path in enumerate(paths):
        values[row, : len(path)] = np.eye(classes)[path]
    return Sequence.from_lengths(jnp.asarray(values), jnp.asarray([len(path) for path in paths]))


def test_repeats_are_merged_before_blanks_are_removed():
    paths = [[1, 1, 0, 1], [0, 2, 2, 3], [0, 0, 0, 0], [], [3, 3], [4, 0, 4, 4]]
    expected = [[1, 1], [2, 3], [], [], [3], [4, 4]]
    for fill in (0.0, np.nan):
        decoded = greedy(path_logits(paths, 4, 5, fill))
        assert to_lists(decoded) == expected
        assert (np.asarray(decoded.values)[~np.asarray(decoded.mask)] == 0).all()


def test_every_short_path_collapses_by_the_definition():
    paths = [list(path) for path in itertools.product(range(3), repeat=5)]
    expected = [[k for k, _ in itertools.groupby(path) if k != 0] for path in paths]
    assert to_lists(greedy(path_logits(paths, 5, 3, 0.0))) == expected


def test_the_last_frame_of_a_full_row_is_kept():
    assert to_lists(greedy(path_logits([[1, 2, 3]], 3, 4, 0.0))) == [[1, 2, 3]]
