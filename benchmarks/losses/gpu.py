"""The same comparison on a CUDA device: torch's own and cuDNN's CTC, torchaudio's RNN-T."""

import importlib
import sys
from pathlib import Path
from typing import Any

import jax

from benchmarks.losses import parts, peers, processor, report, xla
from benchmarks.losses.measure import Clock
from benchmarks.losses.memory import Memory
from benchmarks.losses.peers import CUDNN, Peer
from benchmarks.losses.problems import Kind, Shape, make

# The last shapes are those of T15. Joint networks in torch hold 2 GB of hidden activations there.
SHAPES: dict[Kind, list[Shape]] = {
    "ctc": [*parts.SHAPES["ctc"], Shape(64, 600, 60, 41)],
    "rnnt": [*parts.SHAPES["rnnt"], parts.LARGE],
    "joint": [*parts.SHAPES["joint"], parts.LARGE],
}
PEERS: dict[Kind, dict[str, Peer]] = {
    "ctc": {"torch, its own": peers.PEERS["ctc"]["torch"], "torch, cuDNN": CUDNN},
    "rnnt": {"torchaudio": peers.RNNT["torchaudio"]},
    "joint": {"torchaudio": peers.RNNT["torchaudio"]},
}


def why_not() -> str | None:
    """What is lacking for this comparison on this machine, or None."""
    if not any(device.platform == "gpu" for device in jax.devices()):
        return "JAX sees no GPU here; install the package with [cuda12] or [cuda13]"
    reason = peers.missing("torch")
    if reason is not None:
        return f"torch cannot be imported: {reason}"
    if not importlib.import_module("torch").cuda.is_available():
        return "torch sees no CUDA device here; install a CUDA build of torch"
    return None


def main(out: Path, rounds: int) -> int:
    """Writes OUT.md and OUT.png; returns the exit status, 1 where there is no GPU to measure."""
    reason = why_not()
    if reason is not None:
        print(f"nothing was measured: {reason}", file=sys.stderr)
        return 1
    torch: Any = importlib.import_module("torch")
    torch.set_float32_matmul_precision("high")  # TF32, as JAX multiplies float32 on a GPU
    found = {peer.module: peers.missing(peer.module) for p in PEERS.values() for peer in p.values()}
    findings = parts.Findings(
        about={"device": torch.cuda.get_device_name(), "samples of each time": str(rounds)}
        | processor.about(),
        absent={module: why for module, why in found.items() if why is not None},
    )
    clock = Clock()
    for kind, shapes in SHAPES.items():
        for shape in shapes:
            print(kind, shape, file=sys.stderr)
            findings.rows += _rows(torch, kind, shape, clock, rounds)
            report.write(out, findings)
    print(out.with_suffix(".md").read_text(encoding="utf-8"))
    return 0


def _rows(torch: Any, kind: Kind, shape: Shape, clock: Clock, rounds: int) -> list[parts.Row]:
    problem = make(kind, shape)
    programs = {name: xla.program(loss, problem) for name, loss in xla.LOSSES[kind].items()}
    programs |= {
        name: peers.program(kind, peer, problem, device="cuda")
        for name, peer in PEERS[kind].items()
        if peers.missing(peer.module) is None
    }

    def memory(name: str) -> Memory:
        program = programs[name]
        if name in xla.LOSSES[kind]:
            return Memory(None, program.temporary)
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        program.run()
        return Memory(torch.cuda.max_memory_allocated() - before, None)

    return parts.timing(kind, shape, programs, memory, clock, rounds)
