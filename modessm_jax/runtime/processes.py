"""Several processes that make one run, on one machine or on many (`jax.distributed`).

Every process reads the same data, takes the same steps and gets the same metrics; its devices
compute their part of every batch. Only the first one writes files and inspects the disk; what it
finds is broadcast to the others. These functions are collective: all processes must call them in
the same order. A process that fails elsewhere leaves the rest waiting, until the runtime ends them.
"""

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

_Plain = TypeVar("_Plain")


def join(group: str) -> None:
    """Makes this process one of several; call it before anything is computed.

    Args:
      group: "auto" under SLURM, Open MPI or Kubernetes and on TPU pods, otherwise
        "HOST:PORT,PROCESSES,INDEX": where the first process listens, how many there are, and which
        this one is, from 0.

    Raises:
      ValueError: it is neither.
    """
    if group == "auto":
        jax.distributed.initialize()
        return
    address, *numbers = group.split(",")
    if ":" not in address or len(numbers) != 2 or not all(n.isdigit() for n in numbers):
        raise ValueError(
            f"--distributed is {group!r}; give auto, or HOST:PORT,PROCESSES,INDEX, for example "
            "node0:1234,2,0 in the first of two processes and node0:1234,2,1 in the other"
        )
    processes, index = map(int, numbers)
    jax.distributed.initialize(address, processes, index)


def is_first() -> bool:
    """Whether this process is the first, which writes the files; a single process is."""
    return jax.process_index() == 0


def broadcast_from_first(find: Callable[[], _Plain]) -> _Plain:
    """Calls `find` in the first process, and returns its result, plain JSON values, in all.

    The other processes wait until it is done.

    Raises:
      ValueError: from `find`, in all processes; in the others also where it was an OSError.
    """
    if jax.process_count() == 1:
        return find()
    value, problem = None, None
    if is_first():
        try:
            value = find()
        except (ValueError, OSError) as error:
            problem = error
    result = json.dumps([value, None if problem is None else str(problem)]).encode()
    length = int(multihost_utils.broadcast_one_to_all(np.int32(len(result))))
    buffer = np.frombuffer(result, np.uint8) if is_first() else np.zeros(length, np.uint8)
    result = np.asarray(multihost_utils.broadcast_one_to_all(buffer)).tobytes()
    value, message = json.loads(result)
    if message is not None:
        raise problem or ValueError(message)
    return value


def check_equal(name: str, value: Any) -> None:
    """Checks that all processes have the same plain JSON values.

    Args:
      name: of the value, for the message.

    Raises:
      ValueError: a process has others; raised in all of them.
    """
    if jax.process_count() == 1:
        return
    digest = hashlib.sha256(json.dumps(value, sort_keys=True).encode()).digest()
    digests = multihost_utils.process_allgather(np.frombuffer(digest, np.uint8))
    differing = np.flatnonzero((digests != digests[0]).any(axis=1)).tolist()
    if differing:
        raise ValueError(
            f"the processes {differing} have another {name} than process 0; start all with the "
            "same command, code and recordings"
        )


@contextlib.contextmanager
def first_process_folder(workdir: Path) -> Iterator[Path]:
    """The run directory in the first process; a temporary one in the others."""
    if is_first():
        yield workdir
        return
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


@contextlib.contextmanager
def only_first_prints() -> Iterator[None]:
    """Silences stdout in all processes but the first; stderr stays as it is."""
    if is_first():
        yield
        return
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        yield
