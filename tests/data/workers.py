"""Reads a training split with loader workers until it is killed.

    python -m tests.data.workers ROOT

Prints the process ids of the workers on one line.
"""

import multiprocessing
import sys
import time

from modessm_jax.data.pipeline import training_batches
from modessm_jax.data.plan import BatchPlan
from modessm_jax.data.trials import read_recordings

if __name__ == "__main__":
    recordings = read_recordings(sys.argv[1], "train")
    plan = BatchPlan(
        recordings.bins, recordings.session_ids, batch_size=4, buckets=1, seed=0, multiple=4
    )
    stream = training_batches(recordings, plan, workers=2)
    next(stream)
    print(*(worker.pid for worker in multiprocessing.active_children()), flush=True)
    time.sleep(600)
