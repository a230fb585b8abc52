"""Greedy decoding against its definition, and the best alignment against trying every path."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest

from modessm_jax.decoding.ctc import align, greedy, to_lists
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


@pytest.mark.parametrize("labels", [[1], [1, 2], [2, 2], [1, 2, 1], [2, 2, 1], []])
@pytest.mark.parametrize("seed", range(4))
def test_spans_are_those_of_the_most_likely_path(labels, seed):
    scores = np.log(np.random.default_rng(seed).dirichlet(np.ones(3), size=5))
    paths = [
        path
        for path in itertools.product(range(3), repeat=5)
        if [k for k, _ in itertools.groupby(path) if k] == labels
    ]
    best = max(paths, key=lambda path: sum(scores[t, k] for t, k in enumerate(path)))
    runs = [list(run) for _, run in itertools.groupby(enumerate(best), key=lambda tk: tk[1])]
    expected = [[run[0][0], run[-1][0]] for run in runs if run[0][1]]
    assert align(scores, np.array(labels, int)).tolist() == expected


def test_too_few_frames_are_refused():
    scores = np.zeros((2, 3))
    assert align(scores, np.array([1, 2])).tolist() == [[0, 0], [1, 1]]
    with pytest.raises(ValueError, match="2 frames"):
        align(scores, np.array([1, 1]))


@pytest.mark.parametrize(("frame", "label"), [(slice(None), 1), (slice(None), 2), (0, 1), (2, 2)])
@pytest.mark.parametrize("value", [-np.inf, np.nan])
def test_labels_that_no_path_can_emit_are_refused(frame, label, value):
    scores = np.full((3, 3), np.log(1 / 3))
    scores[frame, label] = value
    scores[:, 0] = -np.inf  # not even a blank may stand where the label should
    with pytest.raises(ValueError, match=r"labels \[1, 2\] any probability"):
        align(scores, np.array([1, 2]))
