"""Several processes that make one run, on one machine or on many (`jax.distributed`).

Every process makes the same run: it reads the same data, takes the same steps and comes to the same
figures, and its devices compute their part of every batch. The first one alone writes files and
decides what it finds on disk; the others are told. All must ask at the same places: one that fails
elsewhere leaves the rest waiting, until the runtime notices and ends them.
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


def join(place: str) -> None:
    """Makes this process one of several; to be called before anything is computed.

    Args:
      place: "auto" where the surroundings tell (SLURM, Open MPI, Kubernetes, TPU pods), otherwise
        "HOST:PORT,PROCESSES,INDEX": where the first process listens, how many there are, and which
        this one is, from 0.

    Raises:
      ValueError: it is neither.
    """
    if place == "auto":
        jax.distributed.initialize()
        return
    address, *numbers = place.split(",")
    if ":" not in address or len(numbers) != 2 or not all(n.isdigit() for n in numbers):
        raise ValueError(
            f"--distributed is {place!r}; give auto, or HOST:PORT,PROCESSES,INDEX, for example "
            "node0:1234,2,0 in the first of two processes and node0:1234,2,1 in the other"
        )
    processes, index = map(int, numbers)
    jax.distributed.initialize(address, processes, index)


def is_first() -> bool:
    """Whether this process is the one that writes; a process alone is."""
    return jax.process_index() == 0


def broadcast_from_first(find: Callable[[], _Plain]) -> _Plain:
    """What `find` returns, plain JSON values, in the first process; the others wait for it.

    So it also keeps them from going on before the first has done what `find` does.
    """
    if jax.process_count() == 1:
        return find()
    text = np.frombuffer(json.dumps(find()).encode() if is_first() else b"", np.uint8)
    length = int(multihost_utils.broadcast_one_to_all(np.int32(text.size)))
    text = multihost_utils.broadcast_one_to_all(text if is_first() else np.zeros(length, np.uint8))
    return json.loads(np.asarray(text).tobytes())


def agree(name: str, value: Any) -> None:
    """Checks that all processes were given the same plain JSON values.

    Raises:
      ValueError: in all of them, if one has others.
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
    """The working directory in the first process; elsewhere a folder that is thrown away."""
    if is_first():
        yield workdir
        return
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


@contextlib.contextmanager
def only_first_prints() -> Iterator[None]:
    """Lets the first process alone print; errors of all still reach stderr."""
    if is_first():
        yield
        return
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        yield
