"""Reads a training split with loader workers, and ignores SIGINT and SIGTERM.

    python -m tests.data.workers ROOT

Prints the process ids of the workers on one line, once each has read. Then, for every line of
input, it reads more batches than are read ahead and prints "read".
"""

import multiprocessing
import signal
import sys

from modessm_jax.data.batches import TrainingBatches
from modessm_jax.data.plan import BatchPlan
from modessm_jax.data.recordings import read_recordings

if __name__ == "__main__":
    recordings = read_recordings(sys.argv[1], "train")
    plan = BatchPlan(
        recordings.bins, recordings.session_ids, batch_size=4, buckets=1, seed=0, multiple=4
    )
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    stream = TrainingBatches(recordings, plan, workers=2)
    for _ in range(2):  # one of each worker: both are up
        next(stream)
    print(*(worker.pid for worker in multiprocessing.active_children()), flush=True)
    for _ in sys.stdin:
        for _ in range(50):
            next(stream)
        print("read", flush=True)
    stream.close()
