"""Batches of trials: the endless, resumable stream of training, and the batches of an evaluation.

Batches are numpy. Features are padded with zeros, labels with the blank.
"""

import contextlib
import dataclasses
import functools
import multiprocessing
import multiprocessing.resource_tracker
import os
import signal
import sys
import threading
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import grain
import jax
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

    A row whose masks are all false only completes the last batch of an evaluation; it is no trial.
    """

    features: Sequence  # float32 [batch, time, channels]
    labels: Sequence  # int32 [batch, labels], phoneme ids 1..40
    session: Any  # int32 [batch], index into the recordings' session names
    block: Any  # int32 [batch], equal for trials of one block of one session
    trial: Any  # int32 [batch], index into the recordings' trials; `FILLER` in a filler row


FILLER = -1
_LABELS_MULTIPLE = 8


def filled(batch: Batch, multiple: int) -> Batch:
    """The batch with as many filler rows at its end as make the number of rows a multiple."""
    rows = len(batch.trial)
    more = -rows % multiple
    padded = jax.tree.map(lambda x: np.pad(x, [(0, more)] + [(0, 0)] * (x.ndim - 1)), batch)
    padded.trial[rows:] = FILLER
    return padded


class TrainingBatches(grain.DatasetIterator[Batch]):
    """The endless stream of a plan's batches, prefetched; close it when done with it.

    Its state is the number of the next batch. What has been read ahead is no part of the state, nor
    is the number of workers, so either may change when a run is resumed.
    """

    def __init__(
        self,
        recordings: Recordings,
        plan: BatchPlan,
        *,
        workers: int = 0,
        one_label_width: bool = False,
    ):
        """Reads nothing yet.

        Args:
            recordings: the training split.
            plan: made from `recordings.bins` and `recordings.session_ids`.
            workers: processes that read; 0 reads in threads of this one, which is faster when the
                features are in memory. Each worker reads from the files. The stream is the same.
            one_label_width: see `label_widths`.
        """
        super().__init__()
        self._recordings = recordings
        self._plan = plan
        self._labels = label_widths(recordings, plan.lengths, one=one_label_width)
        self._workers = workers
        self._step = 0
        self._reader: grain.DatasetIterator[Batch] | None = None

    def __next__(self) -> Batch:
        self._assert_not_closed()
        # Grain starts its workers, in threads of its own, when the first batch is drawn.
        with _signals_left_to_parent() if self._workers else contextlib.nullcontext():
            self.start_prefetch()
            assert self._reader is not None
            batch = next(self._reader)
        self._step += 1
        return batch

    def start_prefetch(self) -> None:
        """Starts to read ahead; `next` does so too."""
        if self._reader is not None:
            return
        read = functools.partial(_read, self._recordings, self._plan, self._labels, os.getpid())
        batches = grain.MapDataset.range(self._step, sys.maxsize).map(read)
        if not self._workers:
            ahead = grain.ReadOptions(num_threads=2, prefetch_buffer_size=4)
            stream = batches.to_iter_dataset(ahead)
        else:
            if not flags.FLAGS.is_parsed():
                # Grain passes the flags on to its workers, and only `app.run` parses them.
                flags.FLAGS.mark_as_parsed()
            ahead = grain.ReadOptions(num_threads=1, prefetch_buffer_size=2)
            processes = grain.MultiprocessingOptions(self._workers, per_worker_buffer_size=2)
            stream = batches.to_iter_dataset(ahead)
            stream = stream.mp_prefetch(processes)
        self._reader = iter(stream)
        self._reader.start_prefetch()

    def largest_like(self, batch: Batch) -> Batch:
        """The shapes of the largest of these batches, with as many rows as the one given."""
        bins = self._plan.lengths[-1]
        widths = bins, self._labels[bins]

        def padded(sequence: Sequence, width: int) -> Sequence:
            return jax.tree.map(
                lambda x: jax.ShapeDtypeStruct((x.shape[0], width, *x.shape[2:]), x.dtype), sequence
            )

        features, labels = map(padded, (batch.features, batch.labels), widths)
        return dataclasses.replace(batch, features=features, labels=labels)

    def get_state(self) -> dict[str, Any]:
        """The number of the next batch, and the fingerprint of the plan."""
        return {"step": self._step, "plan": self._plan.fingerprint}

    def set_state(self, state: dict[str, Any]) -> None:
        """Continues with the batch that the state of such a stream names.

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


def _read(
    recordings: Recordings, plan: BatchPlan, labels: Mapping[int, int], owner: int, step: int
) -> Batch:
    """Batch `step` of the plan; `owner` is the process whose run it is for."""
    if os.getpid() != owner:
        _end_with_parent()
    length, trials = plan[step]
    return _collate(recordings, trials, length, labels[length])


@contextlib.contextmanager
def _signals_left_to_parent() -> Iterator[None]:
    """Processes started inside never get the Ctrl-C or SIGTERM that a whole group of them gets.

    The run needs its workers until it has ended its step and saved; then it closes the stream. They
    inherit the mask, so there is no moment at which a signal could end them. One to this process
    waits meanwhile, or is received by another of its threads.
    """
    # It is a process too, and Python unblocks the signals when it has started it.
    multiprocessing.resource_tracker.ensure_running()
    former = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, former)


@functools.cache
def _end_with_parent() -> None:
    """Makes a worker exit when its parent process is gone.

    A parent that is killed outright cannot stop its workers, which would wait for ever for their
    next batch to be taken.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True, name="end with parent").start()


class EvaluationBatches:
    """Every trial of a split exactly once, longest first, in at most `buckets` shapes.

    A batch is read when it is asked for. The rows that complete the last batch have `trial` =
    `FILLER` and masks that are all false; so have the labels of a split that has none.
    """

    def __init__(
        self,
        recordings: Recordings,
        batch_size: int,
        multiple: int,
        buckets: int,
        *,
        one_label_width: bool = False,
    ):
        """Plans the batches; reads nothing yet.

        Args:
            recordings: any split.
            batch_size: rows of every batch.
            multiple: padded lengths are multiples of it.
            buckets: the most padded lengths, each of which is compiled once.
            one_label_width: see `label_widths`.
        """
        self._recordings = recordings
        order = np.argsort(-recordings.bins.astype(np.int64), kind="stable")
        filler = np.full(-len(order) % batch_size, FILLER, order.dtype)
        self._rows = np.concatenate([order, filler]).reshape(-1, batch_size)
        longest = recordings.bins[self._rows[:, 0]]
        lengths = np.array(padded_lengths(longest, buckets, multiple))
        self._lengths = lengths[np.searchsorted(lengths, longest)]
        self._labels = label_widths(recordings, lengths.tolist(), one=one_label_width)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Batch:
        length = int(self._lengths[index])
        return _collate(self._recordings, self._rows[index], length, self._labels[length])

    def __iter__(self) -> Iterator[Batch]:
        return (self[index] for index in range(len(self)))


def label_widths(
    recordings: Recordings, lengths: Collection[int], *, one: bool = False
) -> dict[int, int]:
    """The width that labels are padded to in the batches of each padded length.

    It holds the longest labels of all trials that are no longer than this. So there are as many
    shapes as lengths, and a transducer's lattice is no larger for short trials than it has to be.

    Args:
        recordings: the split.
        lengths: padded lengths in bins; the last holds every trial.
        one: pads all labels to the longest of the split, as runs begun in format 1 or 2 do: a sum
            over a wider array may be rounded otherwise.
    """
    counts = [0 if trial.labels is None else len(trial.labels) for trial in recordings.trials]
    counts = np.maximum(np.array(counts), 1)
    longest = {
        n: int(counts[recordings.bins <= (max(lengths) if one else n)].max()) for n in lengths
    }
    return {n: -(-labels // _LABELS_MULTIPLE) * _LABELS_MULTIPLE for n, labels in longest.items()}


def _collate(
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
        session[row] = recordings.session_ids_by_name[trial.session]
        block[row] = recordings.block_ids[index]
    return Batch(
        features=Sequence(features, features_mask),
        labels=Sequence(ids, ids_mask),
        session=session,
        block=block,
        trial=rows.astype(np.int32),
    )
