"""Marginalised diphones against sums over a list of all pairs."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np

from modessm_jax.models.diphones import phoneme_log_probabilities
from modessm_jax.phonemes import CLASSES, DIPHONES


def test_a_phoneme_is_as_likely_as_its_diphones_together():
    logits = np.random.default_rng(0).normal(size=(2, 3, DIPHONES)).astype(np.float32)
    found = phoneme_log_probabilities(jnp.asarray(logits))
    p = np.asarray(jax.nn.softmax(logits.astype(np.float64), axis=-1))
    expected = np.zeros((2, 3, CLASSES))
    expected[..., 0] = p[..., 0]
    for diphone, (_, phoneme) in enumerate(itertools.product(range(1, CLASSES), repeat=2), 1):
        expected[..., phoneme] += p[..., diphone]
    np.testing.assert_allclose(np.exp(found), expected, rtol=1e-5)
    np.testing.assert_allclose(np.exp(found).sum(axis=-1), 1, rtol=1e-5)
