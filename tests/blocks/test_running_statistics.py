"""Mean and variance against numpy, padding and prior included."""

import jax.numpy as jnp
import numpy as np

from modessm_jax.blocks.running_statistics import of_trial, prior, so_far
from modessm_jax.sequence import Sequence

LENGTHS = (9, 4, 0)


def trials() -> tuple[np.ndarray, Sequence]:
    values = np.random.default_rng(0).normal(3.0, 2.0, size=(3, 9, 5)).astype(np.float32)
    dirty = np.where(np.arange(9)[None, :, None] < np.array(LENGTHS)[:, None, None], values, np.nan)
    return values, Sequence.from_lengths(jnp.asarray(dirty), jnp.asarray(LENGTHS))


def expected(seen: np.ndarray, frames: float) -> tuple[np.ndarray, np.ndarray]:
    """With the prior as that many frames, half of them at -1 and half at 1."""
    start = np.repeat([[-1.0], [1.0]], int(frames) // 2, axis=0) * np.ones((1, seen.shape[1]))
    both = np.concatenate([start, seen])
    return both.mean(axis=0), both.var(axis=0)


def test_a_trial_has_the_mean_and_variance_of_its_frames_and_the_prior():
    values, x = trials()
    mean, variance = of_trial(prior(3, 5, 10.0), x)
    assert mean.shape == variance.shape == (3, 1, 5)
    for row, length in enumerate(LENGTHS):
        want = expected(values[row, :length], 10.0)
        np.testing.assert_allclose(mean[row, 0], want[0], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(variance[row, 0], want[1], rtol=1e-5)


def test_a_frame_has_those_of_the_frames_so_far():
    values, x = trials()
    _, (mean, variance) = so_far(prior(3, 5, 10.0), x)
    for row, length in enumerate(LENGTHS):
        for time in range(9):
            want = expected(values[row, : min(time + 1, length)], 10.0)
            np.testing.assert_allclose(mean[row, time], want[0], rtol=1e-5, atol=1e-6)
            np.testing.assert_allclose(variance[row, time], want[1], rtol=1e-5)


def test_sums_continue_where_they_stopped():
    _, x = trials()
    first = Sequence(x.values[:, :5], x.mask[:, :5])
    rest = Sequence(x.values[:, 5:], x.mask[:, 5:])
    sums, _ = so_far(prior(3, 5, 10.0), first)
    _, (mean, variance) = so_far(sums, rest)
    _, (whole_mean, whole_variance) = so_far(prior(3, 5, 10.0), x)
    np.testing.assert_allclose(mean, whole_mean[:, 5:], rtol=1e-5)
    np.testing.assert_allclose(variance, whole_variance[:, 5:], rtol=1e-5)


def test_a_large_level_does_not_swallow_the_variance():
    x = Sequence(jnp.full((1, 3000, 2), 300.0), jnp.ones((1, 3000), bool))
    _, (_, variance) = so_far(prior(1, 2, 10.0), x)
    want = expected(np.full((3000, 2), 300.0), 10.0)[1]
    np.testing.assert_allclose(variance[0, -1], want, rtol=0.05)
