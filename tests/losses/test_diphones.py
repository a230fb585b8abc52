"""Diphone labels of padded batches against the pairs of neighbours in a list of all pairs."""

import itertools

from modessm_jax.losses.diphones import diphone_labels
from modessm_jax.phonemes import CLASSES, SILENCE
from tests.losses.enumeration import padded

PAIRS = list(itertools.product(range(1, CLASSES), repeat=2))


def test_labels_are_the_pairs_of_neighbours():
    targets = [[5, 5, 40, 1], [40], [], [1, 2, 3]]
    found = diphone_labels(padded(targets, 5))
    for row, target in enumerate(targets):
        expected = [1 + PAIRS.index(pair) for pair in itertools.pairwise([SILENCE, *target])]
        assert found.values[row, : len(target)].tolist() == expected
        assert (found.values[row, len(target) :] == 0).all()
    assert found.lengths.tolist() == [4, 1, 0, 3]
