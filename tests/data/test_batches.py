"""Batches of training and of an evaluation: their contents, state, workers and ends."""

import dataclasses
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from orbax.checkpoint import v1 as ocp

from modessm_jax.data.batches import (
    Batch,
    EvaluationBatches,
    TrainingBatches,
    label_widths,
)
from modessm_jax.data.plan import BatchPlan
from modessm_jax.data.recordings import Recordings, read_recordings
from modessm_jax.data.validation import DataError
from tests.data.layout import CHANNELS, write_split


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("pipeline")
    for index, session in enumerate(("b.2", "a.1", "c.3")):
        write_split(root, session, "train", [5 + index, 20, 9, 31, 12])
        write_split(root, session, "val", [4, 17 + index])
    write_split(root, "c.3", "test", [0, 6, 3])
    return root


@pytest.fixture(scope="module")
def recordings(root) -> Recordings:
    return read_recordings(root, "train")


def make_plan(recordings: Recordings, seed: int = 0) -> BatchPlan:
    return BatchPlan(
        recordings.bins,
        recordings.session_ids,
        batch_size=4,
        buckets=3,
        seed=seed,
        multiple=4,
    )


def assert_same(batch: Batch, other: Batch):
    np.testing.assert_array_equal(batch.trial, other.trial)
    np.testing.assert_array_equal(batch.session, other.session)
    np.testing.assert_array_equal(batch.features.values, other.features.values)
    np.testing.assert_array_equal(batch.features.mask, other.features.mask)
    np.testing.assert_array_equal(batch.labels.values, other.labels.values)
    np.testing.assert_array_equal(batch.labels.mask, other.labels.mask)


def check_rows(recordings: Recordings, batch: Batch):
    """Every row holds its trial and nothing else."""
    for row, index in enumerate(batch.trial.tolist()):
        trial = recordings.trials[index]
        assert trial.labels is not None
        assert batch.features.mask[row].sum() == trial.bins
        np.testing.assert_array_equal(
            batch.features.values[row, : trial.bins], recordings.features(index)
        )
        assert not batch.features.values[row, trial.bins :].any()
        np.testing.assert_array_equal(
            batch.labels.values[row][batch.labels.mask[row]], trial.labels
        )
        assert recordings.sessions[batch.session[row]] == trial.session
        assert batch.block[row] == recordings.block_ids[index]


def test_stream_follows_the_plan_without_end(recordings):
    plan = make_plan(recordings)
    stream = TrainingBatches(recordings, plan)
    for step in range(3 * plan.steps_per_epoch):
        batch = next(stream)
        length, trials = plan[step]
        np.testing.assert_array_equal(batch.trial, trials)
        assert batch.features.values.shape == (4, length, CHANNELS)
        assert batch.labels.values.shape == (4, 8)
        check_rows(recordings, batch)
        arrays = (batch.features.values, batch.features.mask, batch.labels.values, batch.session)
        assert [str(array.dtype) for array in arrays] == ["float32", "bool", "int32", "int32"]
    stream.close()


def test_state_resumes_exactly_even_after_reading_ahead(recordings):
    plan = make_plan(recordings)
    stream = TrainingBatches(recordings, plan)
    for _ in range(5):
        next(stream)
    state = stream.get_state()
    expected = [next(stream) for _ in range(4)]
    stream.set_state(state)
    resumed = TrainingBatches(recordings, plan)
    resumed.set_state(state)
    for batch in expected:
        assert_same(batch, next(stream))
        assert_same(batch, next(resumed))
    stream.close()
    resumed.close()


def test_labels_are_padded_to_the_longest_of_trials_that_fit(recordings):
    assert label_widths(recordings, [12, 20, 32]) == {12: 8, 20: 8, 32: 8}
    many = dataclasses.replace(recordings, trials=list(recordings.trials))
    for index, labels in ((1, 9), (3, 20)):  # of 20 and 31 bins
        trial = many.trials[index]
        many.trials[index] = dataclasses.replace(trial, labels=np.ones(labels, np.int32))
    lengths = many.bins[[1, 3]].tolist()
    assert lengths == [20, 31]
    assert label_widths(many, [12, 20, 32]) == {12: 8, 20: 16, 32: 24}
    assert label_widths(many, [12, 20, 32], one=True) == {12: 24, 20: 24, 32: 24}
    plan = make_plan(many)
    stream = TrainingBatches(many, plan)
    shapes = {(b.features.mask.shape[1], b.labels.mask.shape[1]) for b in map(next, [stream] * 30)}
    largest = stream.largest_like(next(stream))
    stream.close()
    assert shapes == set(label_widths(many, plan.lengths).items())
    assert largest.features.values.shape == (4, plan.lengths[-1], CHANNELS)
    assert largest.labels.mask.shape == (4, 24) and largest.trial.shape == (4,)


def save_and_load(folder: Path, recordings: Recordings, workers: int):
    plan = make_plan(recordings)
    stream = TrainingBatches(recordings, plan, workers=workers)
    for _ in range(6):
        next(stream)
    with ocp.training.Checkpointer(str(folder)) as checkpointer:
        checkpointer.save_checkpointables(6, {"data": stream})
    expected = [next(stream) for _ in range(3)]
    stream.close()
    fresh = TrainingBatches(recordings, make_plan(recordings), workers=workers)
    with ocp.training.Checkpointer(str(folder)) as checkpointer:
        checkpointer.load_checkpointables(6, {"data": fresh})
    for batch in expected:
        assert_same(batch, next(fresh))
        check_rows(recordings, batch)
    fresh.close()
    # The number of workers is no part of the state.
    plain = TrainingBatches(recordings, plan)
    with ocp.training.Checkpointer(str(folder)) as checkpointer:
        checkpointer.load_checkpointables(6, {"data": plain})
    assert_same(expected[0], next(plain))
    plain.close()


def test_orbax_restores_the_stream(recordings, tmp_path):
    save_and_load(tmp_path / "run", recordings, workers=0)


@pytest.mark.slow
def test_orbax_restores_the_stream_read_by_processes(recordings, tmp_path):
    save_and_load(tmp_path / "run", recordings, workers=2)


def reading_by_workers(root) -> Any:
    command = [sys.executable, "-m", "tests.data.workers", str(root)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, start_new_session=True)


@pytest.mark.slow
def test_workers_have_signals_blocked_from_their_first_moment(recordings):
    stream = TrainingBatches(recordings, make_plan(recordings), workers=2)
    for _ in range(2):  # one of each worker
        next(stream)
    workers = multiprocessing.active_children()
    masks = [Path(f"/proc/{worker.pid}/status").read_text() for worker in workers]
    stream.close()
    assert len(masks) == 2
    for mask in masks:
        blocked = int(re.findall(r"SigBlk:\s*(\w+)", mask)[0], 16)
        for number in (signal.SIGINT, signal.SIGTERM):
            assert blocked >> (number - 1) & 1
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, []) & {signal.SIGINT, signal.SIGTERM}


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_workers_ignore_a_signal_to_the_whole_group(root, number):
    with reading_by_workers(root) as reading:
        assert len(reading.stdout.readline().split()) == 2
        os.killpg(reading.pid, number)
        output, _ = reading.communicate("\n", timeout=120)
    assert output == "read\n" and reading.returncode == 0


@pytest.mark.slow
def test_workers_end_with_a_process_that_is_killed(root):
    with reading_by_workers(root) as reading:
        left = {int(worker) for worker in reading.stdout.readline().split()}
        reading.kill()
    assert len(left) == 2
    for _ in range(200):
        left = {worker for worker in left if is_running(worker)}
        if not left:
            return
        time.sleep(0.1)
    raise AssertionError(f"after 20 s the workers {left} still run")


def is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def test_state_of_another_plan_is_refused(recordings):
    state = TrainingBatches(recordings, make_plan(recordings)).get_state()
    stream = TrainingBatches(recordings, make_plan(recordings, seed=1))
    with pytest.raises(DataError, match="batch_size, buckets, sessions_per_batch or seed"):
        stream.set_state(state)


def test_closed_stream_gives_nothing(recordings):
    stream = TrainingBatches(recordings, make_plan(recordings))
    stream.close()
    with pytest.raises(ValueError, match="closed"):
        next(stream)


def test_evaluation_gives_every_trial_once_in_few_shapes(root):
    recordings = read_recordings(root, "val")
    batches = EvaluationBatches(recordings, batch_size=4, multiple=4, buckets=2)
    read = list(batches)
    assert len(read) == len(batches) == 2
    trials = np.concatenate([batch.trial for batch in read])
    assert sorted(trials.tolist()) == [-1, -1, 0, 1, 2, 3, 4, 5]
    assert len({batch.features.values.shape for batch in read}) <= 2
    lengths = [recordings.trials[index].bins for index in trials if index >= 0]
    assert lengths == sorted(lengths, reverse=True)
    check_rows(recordings, read[0])
    last = read[-1]
    filler = last.trial == -1
    assert filler.tolist() == [False, False, True, True]
    assert not last.features.mask[filler].any()
    assert not last.labels.mask[filler].any()
    assert not last.features.values[filler].any()
    assert_same(batches[1], last)


def test_evaluation_of_an_unlabelled_split_keeps_even_an_empty_trial(root):
    recordings = read_recordings(root, "test")
    (batch,) = EvaluationBatches(recordings, batch_size=4, multiple=4, buckets=3)
    assert batch.trial.tolist() == [1, 2, 0, -1]
    assert batch.features.mask.sum(axis=1).tolist() == [6, 3, 0, 0]
    assert not batch.labels.mask.any()
