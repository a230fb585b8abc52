"""Diphone labels of padded batches against those of single sequences."""

from modessm_jax.losses.diphones import diphone_labels
from modessm_jax.phonemes import diphone_ids
from tests.losses.enumeration import padded


def test_labels_are_those_of_the_vocabulary():
    targets = [[5, 5, 40, 1], [40], [], [1, 2, 3]]
    found = diphone_labels(padded(targets, 5))
    for row, target in enumerate(targets):
        assert found.values[row, : len(target)].tolist() == diphone_ids(target).tolist()
        assert (found.values[row, len(target) :] == 0).all()
    assert found.lengths.tolist() == [4, 1, 0, 3]
