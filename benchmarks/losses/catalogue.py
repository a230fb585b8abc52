"""Everything that computes a kind of loss: ours, its plain versions, and the peers at hand."""

from benchmarks.losses import peers, xla
from benchmarks.losses.problems import Kind, Problem, Shape
from benchmarks.losses.xla import Program


def present(kind: Kind, shape: Shape) -> list[str]:
    """Names of what can be measured at a shape on this machine, this package's loss first."""
    cells = shape.batch * shape.frames * (shape.labels + 1)
    here = [
        name
        for name, peer in peers.PEERS[kind].items()
        if cells <= peer.cells and peers.missing(peer.module) is None
    ]
    return [*xla.LOSSES[kind], *here]


def absent() -> dict[str, str]:
    """Why each peer that is not measured is not."""
    modules = {name: peer.module for part in peers.PEERS.values() for name, peer in part.items()}
    reasons = {name: peers.missing(module) for name, module in modules.items()}
    return {name: why for name, why in reasons.items() if why is not None} | peers.ELSEWHERE


def build(kind: Kind, name: str, problem: Problem) -> Program:
    """Makes a loss, by its name in `present`, ready to run on a problem."""
    if name in xla.LOSSES[kind]:
        return xla.program(xla.LOSSES[kind][name], problem)
    return peers.program(kind, peers.PEERS[kind][name], problem)
