"""warp-transducer's shared library as a torch function.

Its own binding does not build with a current torch; its C interface has not changed. Build
libwarprnnt.so from its sources and name it in the environment variable WARPRNNT.
"""

import ctypes
import os
from typing import Any


class Options(ctypes.Structure):
    """`rnntOptions` of the C interface."""

    _fields_ = [
        ("place", ctypes.c_int),
        ("threads", ctypes.c_size_t),  # a union with a pointer
        ("blank", ctypes.c_int),
        ("frames", ctypes.c_int),
        ("positions", ctypes.c_int),
        ("batch_first", ctypes.c_bool),
    ]


def library() -> ctypes.CDLL:
    """The library named by WARPRNNT.

    Raises:
      ImportError: the variable is not set, or names something that cannot be loaded.
    """
    path = os.environ.get("WARPRNNT")
    if path is None:
        raise ImportError("the variable WARPRNNT does not name its library")
    try:
        return ctypes.CDLL(path)
    except OSError as error:
        raise ImportError(f"WARPRNNT: {error}") from error


def make_function(torch: Any, threads: int) -> Any:
    """An autograd function: (log-probabilities, ids, frames, labels) -> summed cost."""
    shared = library()

    class WarpTransducer(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, log_probabilities: Any, ids: Any, frames: Any, labels: Any) -> Any:
            batch, longest, positions, classes = log_probabilities.shape
            gradient = torch.empty_like(log_probabilities)
            nats = torch.empty(batch)
            work = torch.empty(batch * longest * positions * 4)
            status = shared.compute_rnnt_loss(
                *(ctypes.c_void_p(given.data_ptr())
                  for given in (log_probabilities, gradient, ids, labels, frames)),
                classes,
                batch,
                ctypes.c_void_p(nats.data_ptr()),
                ctypes.c_void_p(work.data_ptr()),
                Options(0, threads, 0, longest, positions, True),
            )  # fmt: skip
            if status:
                raise RuntimeError(f"compute_rnnt_loss failed with status {status}")
            ctx.gradient = gradient
            return nats.sum()

        @staticmethod
        def backward(ctx: Any, weight: Any) -> Any:
            return ctx.gradient.mul_(weight), None, None, None

    return WarpTransducer.apply
