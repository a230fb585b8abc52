"""Running normalisation against a plain loop, bin by bin, in recordings and in streams."""

import pickle
from pathlib import Path

import numpy as np
import pytest

from modessm_jax.data.normalization import RunningNormalization, read_normalization
from modessm_jax.data.recordings import Recordings, read_recordings
from modessm_jax.data.validation import DataError
from tests.data.layout import write_trial

CHANNELS = 3
DATA = {"normalize": "running", "normalize_window": 2.0, "normalize_log": "", "channels": ""}


def by_definition(values: np.ndarray, window: float) -> np.ndarray:
    """Weighted mean and deviation of each bin's past, bin by bin."""
    found = np.zeros(values.shape)
    for t in range(len(values)):
        weights = np.exp(-0.02 * np.arange(t, -1, -1) / window)
        for c in range(values.shape[1]):
            known = np.isfinite(values[: t + 1, c])
            x, w = values[: t + 1, c][known], weights[known]
            if not known[-1]:
                continue
            mean = np.average(x, weights=w)
            deviation = np.sqrt(np.average((x - mean) ** 2, weights=w))
            if deviation > 1e-9:
                found[t, c] = np.clip((x[-1] - mean) / deviation, -10, 10)
    return found


def counts(bins: int, seed: int = 0) -> np.ndarray:
    values = np.random.default_rng(seed).poisson(0.7, (bins, CHANNELS)).astype(np.float32)
    return values + np.array([0, 40, 0], np.float32)


def test_scores_are_those_of_the_definition() -> None:
    rule, values = RunningNormalization(2.0), counts(200)
    _, found = rule(rule.start(CHANNELS), values, "")
    np.testing.assert_allclose(found, by_definition(values.astype(float), 2.0), atol=2e-6)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found[100:].std(axis=0), 1, atol=0.25)


def test_in_pieces_the_same_bits() -> None:
    rule, values = RunningNormalization(2.0, log=np.array([0, 2])), counts(120)
    values[5:9, 1] = np.nan
    end, whole = rule(rule.start(CHANNELS), values, "")
    state, parts = rule.start(CHANNELS), []
    for cut in np.split(values, [0, 1, 2, 30, 31, 90]):
        state, part = rule(state, cut, "")
        parts.append(part)
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    np.testing.assert_array_equal(state, end)


def test_what_is_not_finite_counts_for_nothing_and_is_the_mean() -> None:
    rule, values = RunningNormalization(1.0), counts(80)
    values[10:50, 0], values[3, 1] = np.nan, np.inf
    _, found = rule(rule.start(CHANNELS), values, "")
    assert (found[10:50, 0] == 0).all() and found[3, 1] == 0
    np.testing.assert_allclose(found, by_definition(values.astype(float), 1.0), atol=2e-6)


def test_a_constant_channel_is_zero_and_a_first_spike_is_clipped() -> None:
    rule, values = RunningNormalization(60.0), np.zeros((500, 3))
    values[:, 1], values[400, 2] = 1234.567, 3
    _, found = rule(rule.start(CHANNELS), values, "")
    assert (found[:, :2] == 0).all() and (found[:400, 2] == 0).all()
    assert found[400, 2] == 10


def test_logarithms_are_those_of_the_channels_recorded() -> None:
    chosen, logs = np.array([1, 4, 9]), np.array([4, 9])
    values = counts(50)
    plain, rule = RunningNormalization(2.0), RunningNormalization(2.0, logs, chosen)
    taken = values.astype(np.float64)
    taken[:, 1:] = np.log1p(taken[:, 1:])
    _, expected = plain(plain.start(CHANNELS), taken, "")
    np.testing.assert_array_equal(rule(rule.start(CHANNELS), values, "")[1], expected)
    with pytest.raises(DataError, match="a/block 1/trial 2: has values of -1 or less"):
        rule(rule.start(CHANNELS), values - 1, "a/block 1/trial 2")


def test_the_config_is_read() -> None:
    assert read_normalization(DATA | {"normalize": "as_stored"}) is None
    rule = read_normalization(DATA | {"normalize_log": "1-2", "channels": "0,2"})
    assert rule is not None and rule.window == 2.0
    assert rule.log is not None and rule.log.tolist() == [1, 2]
    for changes, message in (
        ({"normalize": "block"}, "data.normalize is 'block'; choose as_stored or running"),
        ({"normalize_window": 0.0}, r"data.normalize_window is 0.0; give seconds"),
        ({"normalize_log": "3-"}, "data.normalize_log is '3-'; .* empty for none"),
        ({"normalize": "as_stored", "normalize_log": "1"}, "it needs data.normalize=running"),
    ):
        with pytest.raises(DataError, match=message):
            read_normalization(DATA | changes)


def recordings(root: Path, memory_gib: float) -> Recordings:
    rule = RunningNormalization(2.0)
    return read_recordings(root, "val", memory_gib=memory_gib, normalization=rule)


def test_recordings_are_normalised_as_a_stream_of_their_trials(tmp_path: Path) -> None:
    """Whether they are in memory, in files, or in another process; in the order of recording."""
    written: dict[str, list[np.ndarray]] = {}
    for session in ("a", "b"):
        (tmp_path / session).mkdir()
        for number, block in enumerate((3, 1, 1)):  # not the order of recording
            features = counts(30 + number, seed=number + 5 * (session == "b"))
            features[2, 0] = np.nan
            written.setdefault(session, []).append(features)
            file = tmp_path / session / "data_val.hdf5"
            write_trial(
                file, number, labels=[1], features=features, bins=len(features), block=block
            )
    rule = RunningNormalization(2.0)
    expected = []
    for trials in written.values():
        state, found = rule.start(CHANNELS), {}
        for number in (1, 2, 0):
            for bins in trials[number]:
                state, scores = rule(state, bins[None], "")
                found.setdefault(number, []).append(scores)
        expected += [np.concatenate(found[number]) for number in range(3)]
    in_memory, on_disk = recordings(tmp_path, 1.0), recordings(tmp_path, 0.0)
    assert on_disk.memory is None
    for read in (in_memory, on_disk, pickle.loads(pickle.dumps(in_memory))):
        for index, scores in enumerate(expected):
            np.testing.assert_array_equal(read.features(index), scores)
            assert not read.features(index).flags.writeable
    assert in_memory.checksums == read_recordings(tmp_path, "val").checksums
