"""What is measured in torch, where it can be imported: CTC and the RNN-T losses of others."""

import functools
import importlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.losses import warp
from benchmarks.losses.problems import Kind, Problem
from benchmarks.losses.xla import Program

# Losses that no table of processor times can have, and why.
ELSEWHERE = {
    "warp-rnnt": "CUDA only, builds against a CUDA torch",
    "SpeechBrain": "CUDA only (numba kernels)",
    "k2": "no release for this Python; the same recursion as fast_rnnt",
}


@dataclass(frozen=True)
class Tensors:
    """Lengths and ids of a problem in torch, int32."""

    torch: Any
    ids: Any
    frames: Any
    labels: Any
    full: bool  # no example is padded


@dataclass(frozen=True)
class Peer:
    """A loss of RNN-T logits, or of CTC's.

    `cost(module, logits, tensors)` is the summed cost. Problems of more than `cells` lattice cells
    take it minutes and are left out.
    """

    module: str
    cost: Callable[[Any, Any, Tensors], Any]
    cells: int = sys.maxsize


def missing(module: str) -> str | None:
    """Why a module cannot be imported, in a line; None if it can."""
    try:
        importlib.import_module("torch")
        load(module)
    except (ImportError, OSError) as error:
        return f"{type(error).__name__}: {str(error).splitlines()[0]}"
    return None


@functools.cache
def load(module: str) -> Any:
    """Imports a peer; `warp` stands for warp-transducer's library."""
    if module == "warp":
        torch = importlib.import_module("torch")
        return warp.make_function(torch, torch.get_num_threads())
    return importlib.import_module(module)


def _torch_ctc(functional: Any, logits: Any, given: Tensors) -> Any:
    return functional.ctc_loss(
        functional.log_softmax(logits, -1), given.ids, given.frames, given.labels, reduction="sum"
    )


def _cudnn_ctc(functional: Any, logits: Any, given: Tensors) -> Any:
    # torch hands CTC to cuDNN where ids are in a row and they and the lengths are on the host.
    on_host = (x.cpu() for x in (given.ids.flatten(), given.frames, given.labels))
    return functional.ctc_loss(functional.log_softmax(logits, -1), *on_host, reduction="sum")


def _torchaudio(functional: Any, logits: Any, given: Tensors) -> Any:
    return functional.rnnt_loss(
        logits, given.ids, given.frames, given.labels, blank=0, reduction="sum"
    )


def _warp(function: Any, logits: Any, given: Tensors) -> Any:
    log_probabilities = given.torch.log_softmax(logits, -1)
    return function(log_probabilities, given.ids, given.frames, given.labels)


def _fast_rnnt(module: Any, logits: Any, given: Tensors) -> Any:
    start = given.torch.zeros_like(given.frames)
    boundary = given.torch.stack([start, start, given.labels, given.frames], dim=1).long()
    return module.rnnt_loss(logits, given.ids.long(), 0, boundary, reduction="sum")


def _optimized(module: Any, logits: Any, given: Tensors) -> Any:
    # It takes the cells of all examples in a row, and writes the gradient over them.
    if given.full:
        packed = (logits.clone() if logits.is_leaf else logits).flatten(0, 2)
    else:
        lengths = zip(given.frames.tolist(), given.labels.tolist(), strict=True)
        parts = [logits[row, :t, : u + 1].flatten(0, 1) for row, (t, u) in enumerate(lengths)]
        packed = given.torch.cat(parts)
    return module.transducer_loss(
        packed, given.ids, given.frames, given.labels, 0, from_log_softmax=False, reduction="sum"
    )


def _numba(module: Any, logits: Any, given: Tensors) -> Any:
    return module.rnnt_loss(logits, given.ids, given.frames, given.labels, reduction="sum")


RNNT = {
    "torchaudio": Peer("torchaudio.functional", _torchaudio),
    "warp-transducer": Peer("warp", _warp),
    "fast_rnnt": Peer("fast_rnnt", _fast_rnnt),
    "optimized_transducer": Peer("optimized_transducer", _optimized),
}
# Its processor version is a Python loop over cells.
SLOW = {"warprnnt_numba": Peer("warprnnt_numba.rnnt_loss.rnnt_pytorch", _numba, cells=20_000)}

CUDNN = Peer("torch.nn.functional", _cudnn_ctc)  # on a GPU, examples of full length

PEERS: dict[Kind, dict[str, Peer]] = {
    "ctc": {"torch": Peer("torch.nn.functional", _torch_ctc)},
    "rnnt": RNNT | SLOW,
    "joint": RNNT,
}


def program(kind: Kind, peer: Peer, problem: Problem, device: str = "cpu") -> Program:
    """A peer's loss and gradient on a problem; CTC's logits are in torch's order, frames first.

    Raises:
      ImportError, OSError: torch or the peer cannot be imported; see `missing`.
    """
    torch = importlib.import_module("torch")
    module = load(peer.module)

    def tensor(array: np.ndarray) -> Any:
        return torch.from_numpy(np.ascontiguousarray(array)).to(device)

    values = tuple(v.swapaxes(0, 1) for v in problem.values) if kind == "ctc" else problem.values
    leaves = tuple(tensor(value).requires_grad_() for value in values)
    given = Tensors(
        torch,
        tensor(problem.ids),
        tensor(problem.frames),
        tensor(problem.labels),
        problem.full,
    )

    def run() -> Any:
        if kind == "joint":
            encoder, predictor, kernel, bias = leaves
            hidden = torch.tanh(encoder[:, :, None] + predictor[:, None])
            logits = torch.nn.functional.linear(hidden, kernel.T, bias)
        else:
            logits = leaves[0]
        cost = peer.cost(module, logits, given)
        result = cost.detach(), torch.autograd.grad(cost, leaves)
        if device == "cuda":
            torch.cuda.synchronize()
        return result

    def read(result: Any) -> list[np.ndarray]:
        cost, gradients = result
        arrays = [gradient.detach().cpu().numpy() for gradient in gradients]
        if kind == "ctc":
            arrays = [array.swapaxes(0, 1) for array in arrays]
        return [cost.cpu().numpy().reshape(()), *arrays]

    return Program(run=run, read=read)
