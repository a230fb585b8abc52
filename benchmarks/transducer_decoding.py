"""Encoder frames a second of transducer decoding: greedy and beams, both predictors.

    python -m benchmarks.transducer_decoding
    python -m benchmarks.transducer_decoding --out benchmarks/results/transducer_decoding

Random parameters, with the bias of the blank set so that a given share of the frames begins a label
after random ones. The searches of one predictor and batch size take turns. Prints a table;
writes OUT.md where given.
"""

import argparse
import itertools
import platform
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from benchmarks.losses.measure import Clock, Spread, spread
from benchmarks.losses.report import milliseconds, table
from modessm_jax.blocks.predictor import PREDICTORS, Predictor, make_predictor
from modessm_jax.decoding.transducer import greedy, make_transducer
from modessm_jax.decoding.transducer_beam import beam
from modessm_jax.losses.transducer import Joint
from modessm_jax.phonemes import BLANK, CLASSES
from modessm_jax.sequence import Sequence

BATCHES = (1, 16)
WIDTHS = (4, 16)
SPEAKING = 0.15  # share of frames that begin a label: at 80 ms a frame some 2 phonemes a second
COLUMNS = (
    "predictor", "search", "batch", "frames a second, median", "quartiles", "ms, median",
    "labels a frame",
)  # fmt: skip


class Row(NamedTuple):
    """One search of one predictor: seconds of a call, and the labels it emitted."""

    kind: str
    search: str
    batch: int
    seconds: Spread
    labels_a_frame: float


def random_encoder(batch: int, frames: int, d: int) -> Sequence:
    """Frames without padding."""
    values = np.random.default_rng(0).normal(size=(batch, frames, d))
    return Sequence(jnp.asarray(values, jnp.float32), jnp.ones((batch, frames), bool))


def random_joint(predictor: Predictor, d: int) -> Joint:
    """A joint network that prefers a label to the blank in the share `SPEAKING` of the frames."""
    random = np.random.default_rng(1)
    kernel = jnp.asarray(random.normal(size=(d, CLASSES)) * 2 / d**0.5, jnp.float32)
    labels = jnp.asarray(random.integers(1, CLASSES, (1, 999)), jnp.int32)
    hidden = jnp.tanh(random_encoder(1, 1000, d).values + predictor(labels))
    logits = np.asarray(hidden[0] @ kernel)
    margins = np.delete(logits, BLANK, axis=1).max(axis=1) - logits[:, BLANK]
    bias = np.zeros(CLASSES, np.float32)
    bias[BLANK] = np.quantile(margins, 1 - SPEAKING)
    return Joint(kernel, jnp.asarray(bias))


def searches(max_labels: int) -> dict[str, Callable[..., Any]]:
    """What is measured, by name."""
    beams = {f"beam {n}": partial(beam, width=n, max_labels=max_labels) for n in WIDTHS}
    return {"greedy": greedy, **beams}


def measure(kind: str, batch: int, options: argparse.Namespace) -> list[Row]:
    """All searches of one predictor at one batch size, taking turns."""
    predictor = make_predictor(kind, options.d, rate=0.0, dtype=jnp.float32, rngs=nnx.Rngs(0))
    joint = random_joint(predictor, options.d)
    graph, params = nnx.split(predictor, nnx.Param)
    encoder = random_encoder(batch, options.frames, options.d)
    calls, labels = {}, {}
    for name, search in searches(options.max_labels).items():

        @jax.jit
        def run(params: Any, joint: Joint, encoder: Sequence, search: Any = search) -> Any:
            module = nnx.merge(graph, params)
            return search(make_transducer(module.initial_state, module.step, joint), encoder)

        call = partial(run, params, joint, encoder)
        first = call()  # compiles
        lengths = first.lengths if isinstance(first, Sequence) else first.lengths[:, 0]
        labels[name] = float(lengths.mean()) / options.frames
        calls[name] = lambda call=call: jax.block_until_ready(call())
    seconds = Clock().rounds(calls, options.rounds)
    return [Row(kind, name, batch, spread(seconds[name]), labels[name]) for name in calls]


def report(rows: list[Row], options: argparse.Namespace) -> str:
    """Where it was measured, and a table."""
    device = jax.devices()[0]
    kind = platform.machine() if device.platform == "cpu" else device.device_kind
    about = (
        f"{device.platform} ({kind}), jax {jax.__version__}: {options.frames} frames, joint of "
        f"width {options.d} with {CLASSES} classes, at most {options.max_labels} labels in a beam, "
        f"float32; median and quartiles of {options.rounds} rounds.\n\n"
    )
    return about + table(COLUMNS, (line(row, options.frames) for row in rows)) + "\n"


def line(row: Row, frames: int) -> list[str]:
    rates = [f"{row.batch * frames / seconds:,.0f}" for seconds in row.seconds]
    median, upper, lower = rates
    return [
        row.kind, row.search, str(row.batch), median, f"{lower} to {upper}",
        milliseconds(row.seconds.median), f"{row.labels_a_frame:.2f}",
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.transducer_decoding", description=__doc__
    )
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--out", type=Path, help="path without suffix")
    parser.add_argument("--frames", type=int, default=250)
    parser.add_argument("--d", type=int, default=512)
    parser.add_argument("--max_labels", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=11, help="samples of each time")
    options = parser.parse_args()
    pairs = itertools.product(PREDICTORS, BATCHES)
    rows = [row for kind, batch in pairs for row in measure(kind, batch, options)]
    text = report(rows, options)
    if options.out is not None:
        options.out.with_suffix(".md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
