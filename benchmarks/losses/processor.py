"""How much of the processor a benchmark may use; set before anything numerical is imported."""

import importlib.metadata
import os
import platform
from pathlib import Path

LIBRARIES = (
    "jax", "optax", "torch", "torchaudio", "fast_rnnt", "optimized_transducer", "warprnnt_numba"
)  # fmt: skip


def pin(threads: int) -> None:
    """Keeps this process, and those it starts, on the last `threads` of its cores.

    Raises:
      ValueError: fewer cores than threads.
    """
    cores = sorted(os.sched_getaffinity(0))
    if not 1 <= threads <= len(cores):
        raise ValueError(f"--threads is {threads} but this process has {len(cores)} cores")
    os.sched_setaffinity(0, cores[-threads:])
    os.environ["OMP_NUM_THREADS"] = str(threads)
    os.environ["JAX_PLATFORMS"] = "cpu"
    if threads == 1:
        flag = "--xla_cpu_multi_thread_eigen=false"
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flag}".strip()


def about() -> dict[str, str]:
    """The processor's name and the versions of what is measured."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    found = {"processor": models[0] if models else platform.processor()}
    for library in LIBRARIES:
        try:
            found[library] = importlib.metadata.version(library)
        except importlib.metadata.PackageNotFoundError:
            found[library] = "absent"
    return found
