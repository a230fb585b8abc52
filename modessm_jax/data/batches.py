"""What the loader hands to the training step.

From trials to batches: an endless, resumable training stream, and the batches of an evaluation.

Batches are numpy. Features are padded with zeros, labels with the blank.
"""

import functools
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any

import grain
import numpy as np
from absl import flags
from flax import struct
from jaxtyping import Int

from modessm_jax.data.plan import BatchPlan, padded_lengths
from modessm_jax.data.recordings import Recordings
from modessm_jax.data.validation import DataError
from modessm_jax.phonemes import BLANK
from modessm_jax.sequence import Sequence


@struct.dataclass
class Batch:
    """Trials padded to one shape.

    A row whose masks are all false fills up a last, incomplete batch and counts for nothing.
    """

    features: Sequence  # float32 [batch, time, channels]
    labels: Sequence  # int32 [batch, labels], phoneme ids 1..40
    session: Any  # int32 [batch], index into the recordings' session names
    block: Any  # int32 [batch], equal for trials of one block of one session
    trial: Any  # int32 [batch], index into the recordings' trials; -1 in a filler row


_LABELS_MULTIPLE = 8
FILLER = -1


def training_batches(
    recordings: Recordings, plan: BatchPlan, *, workers: int = 0
) -> "TrainingBatches":
    """The endless stream of the plan's batches, prefetched.

    Args:
        recordings: the training split.
        plan: made from `recordings.bins` and `recordings.session_ids`.
        workers: processes that read; 0 reads in threads of this one, which is faster when the
            features are in memory. Each worker reads from the files. The stream is the same.
    """
    return TrainingBatches(recordings, plan, workers)


def evaluation_batches(
    recordings: Recordings, batch_size: int, multiple: int, buckets: int
) -> "EvaluationBatches":
    """Every trial exactly once, longest first, in at most `buckets` shapes.

    The rows that fill up the last batch have `trial = -1` and masks that are all false; so have the
    labels of a split that has none.
    """
    return EvaluationBatches(recordings, batch_size, multiple, buckets)


class TrainingBatches(grain.DatasetIterator[Batch]):
    """An iterator whose state is the number of the next batch; it never ends.

    Grain reads ahead; what it has read ahead is no part of the state, nor is the number of workers,
    so either may change when a run is resumed. Close it when done with it.
    """

    def __init__(self, recordings: Recordings, plan: BatchPlan, workers: int = 0):
        super().__init__()
        self._recordings = recordings
        self._plan = plan
        self._workers = workers
        self._step = 0
        self._reader: grain.DatasetIterator[Batch] | None = None

    def __next__(self) -> Batch:
        self._assert_not_closed()
        self.start_prefetch()
        assert self._reader is not None
        batch = next(self._reader)
        self._step += 1
        return batch

    def start_prefetch(self) -> None:
        """Begins to read ahead; the first `next` does it otherwise."""
        if self._reader is not None:
            return
        source = _Source(self._recordings, self._plan, self._step)
        batches = grain.MapDataset.source(source)
        if not self._workers:
            ahead = grain.ReadOptions(num_threads=2, prefetch_buffer_size=4)
            self._reader = iter(batches.to_iter_dataset(ahead))
        else:
            if not flags.FLAGS.is_parsed():
                # Grain's workers are handed the flags, which only `app.run` parses.
                flags.FLAGS.mark_as_parsed()
            ahead = grain.ReadOptions(num_threads=1, prefetch_buffer_size=2)
            processes = grain.MultiprocessingOptions(self._workers, per_worker_buffer_size=2)
            read = batches.to_iter_dataset(ahead).mp_prefetch(processes, _leave_signals_to_parent)
            self._reader = iter(read)
        self._reader.start_prefetch()

    def get_state(self) -> dict[str, Any]:
        """The number of the next batch, and which plan it is a number in."""
        return {"step": self._step, "plan": self._plan.fingerprint}

    def set_state(self, state: dict[str, Any]) -> None:
        """Goes to the batch a state of this stream names.

        Raises:
            DataError: the state belongs to another plan.
        """
        if state["plan"] != self._plan.fingerprint:
            raise DataError(
                f"the saved data stream follows plan {state['plan']}, but the trials and the "
                f"config give plan {self._plan.fingerprint}: the training trials, batch_size, "
                "buckets, sessions_per_batch or seed have changed. Resume with the data and config "
                "the run was started with, or start a new run."
            )
        self._stop()
        self._step = state["step"]

    def close(self) -> None:
        """Stops reading ahead and ends the workers."""
        self._closed = True
        self._stop()

    def _stop(self) -> None:
        reader, self._reader = getattr(self, "_reader", None), None
        if reader is not None:
            reader.close()


class _Source:
    """The plan's batches from step `start` on, by number; what Grain reads from."""

    def __init__(self, recordings: Recordings, plan: BatchPlan, start: int):
        self.recordings = recordings
        self.plan = plan
        self.start = start
        self.labels = label_width(recordings)
        self._owner = os.getpid()

    def __len__(self) -> int:
        return sys.maxsize - self.start

    def __getitem__(self, index: int) -> Batch:
        if os.getpid() != self._owner:
            _end_with_parent()
        length, trials = self.plan[self.start + index]
        return collate(self.recordings, trials, length, self.labels)


def _leave_signals_to_parent(worker: int, workers: int) -> None:
    """Makes a worker live through the Ctrl-C or SIGTERM that a whole group of processes gets.

    The run needs it until it has ended its step and saved; then it closes the stream. Grain calls
    this once the worker runs: a signal in the seconds before still ends it, and with it a run that
    has made fewer steps than it has workers.
    """
    del worker, workers
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


@functools.cache
def _end_with_parent() -> None:
    """Makes a worker end when the process it reads for is gone.

    One that was killed outright has told its workers nothing, and they would wait for ever for
    somebody to take their next batch.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True, name="end with parent").start()


class EvaluationBatches:
    """Batches of one split, each read when it is asked for; see `evaluation_batches`."""

    def __init__(self, recordings: Recordings, batch_size: int, multiple: int, buckets: int):
        self._recordings = recordings
        self._labels = label_width(recordings)
        order = np.argsort(-recordings.bins.astype(np.int64), kind="stable")
        filler = np.full(-len(order) % batch_size, FILLER, order.dtype)
        self._rows = np.concatenate([order, filler]).reshape(-1, batch_size)
        longest = recordings.bins[self._rows[:, 0]]
        lengths = np.array(padded_lengths(longest, buckets, multiple))
        self._lengths = lengths[np.searchsorted(lengths, longest)]

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Batch:
        length = int(self._lengths[index])
        return collate(self._recordings, self._rows[index], length, self._labels)

    def __iter__(self) -> Iterator[Batch]:
        return (self[index] for index in range(len(self)))


def label_width(recordings: Recordings) -> int:
    """The width labels of this split are padded to: one for all batches, so one shape less."""
    longest = max(0 if trial.labels is None else len(trial.labels) for trial in recordings.trials)
    return max(1, -(-longest // _LABELS_MULTIPLE)) * _LABELS_MULTIPLE


def collate(
    recordings: Recordings, rows: Int[np.ndarray, "batch"], bins: int, labels: int
) -> Batch:
    """Pads the trials `rows` (`FILLER` for an empty row) to `bins` bins and `labels` labels."""
    size = len(rows)
    features = np.zeros((size, bins, recordings.channels), np.float32)
    features_mask = np.zeros((size, bins), bool)
    ids = np.full((size, labels), BLANK, np.int32)
    ids_mask = np.zeros((size, labels), bool)
    session, block = np.zeros((2, size), np.int32)
    for row, index in enumerate(rows.tolist()):
        if index == FILLER:
            continue
        trial = recordings.trials[index]
        features[row, : trial.bins] = recordings.features(index)
        features_mask[row, : trial.bins] = True
        if trial.labels is not None:
            ids[row, : len(trial.labels)] = trial.labels
            ids_mask[row, : len(trial.labels)] = True
        session[row] = recordings.sessions.index(trial.session)
        block[row] = recordings.block_ids[index]
    return Batch(
        features=Sequence(features, features_mask),
        labels=Sequence(ids, ids_mask),
        session=session,
        block=block,
        trial=rows.astype(np.int32),
    )
