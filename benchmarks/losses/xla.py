"""What is measured in JAX: this package's losses, their plain versions, and optax."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.losses.problems import Kind, Problem
from modessm_jax.losses.ctc import ctc_cost
from modessm_jax.losses.rnnt import rnnt_cost
from modessm_jax.losses.transducer import Joint, transducer_cost
from modessm_jax.sequence import Sequence

ABSENT = -1e30  # logarithm of the probability of a cell outside the lattice

# (values, ids, frames, labels) -> summed cost; see `Problem`
Loss = Callable[[tuple[Any, ...], Any, Any, Any], Any]


@dataclass(frozen=True)
class Program:
    """A loss and its gradient on one problem, ready to run."""

    run: Callable[[], Any]
    read: Callable[[Any], list[np.ndarray]]  # result -> summed cost, gradient of each value
    temporary: int | None = None  # bytes beside arguments and results, if the compiler reports them
    compilation: float | None = None  # seconds


def program(loss: Loss, problem: Problem) -> Program:
    """Compiles a loss and its gradient for a problem and places the problem on the device."""
    arguments = jax.device_put((problem.values, problem.ids, problem.frames, problem.labels))
    compiled, seconds = compilation(loss, arguments)
    memory = compiled.memory_analysis()
    return Program(
        run=lambda: jax.block_until_ready(compiled(*arguments)),
        read=lambda result: [np.asarray(leaf) for leaf in jax.tree.leaves(result)],
        temporary=int(memory.temp_size_in_bytes) if memory else None,
        compilation=seconds,
    )


def compilation(loss: Loss, arguments: Any) -> tuple[Any, float]:
    """The compiled loss and gradient, and the seconds of tracing and compiling them."""
    # A function of its own, so that nothing traced before is used again.
    step = jax.jit(jax.value_and_grad(lambda *given: loss(*given)))
    start = time.perf_counter()
    compiled = step.lower(*arguments).compile()
    return compiled, time.perf_counter() - start


def ours_ctc(values: tuple[Any, ...], ids: Any, frames: Any, labels: Any) -> Any:
    """This package's CTC."""
    logits = Sequence.from_lengths(values[0], frames)
    return ctc_cost(logits, Sequence.from_lengths(ids, labels)).nats.sum()


def optax_ctc(values: tuple[Any, ...], ids: Any, frames: Any, labels: Any) -> Any:
    """optax.ctc_loss."""
    logit_padding = jnp.arange(values[0].shape[1])[None, :] >= frames[:, None]
    label_padding = jnp.arange(ids.shape[1])[None, :] >= labels[:, None]
    return optax.ctc_loss(
        values[0], logit_padding.astype(jnp.float32), ids, label_padding.astype(jnp.float32)
    ).sum()


def ours_rnnt(values: tuple[Any, ...], ids: Any, frames: Any, labels: Any) -> Any:
    """This package's RNN-T of logits."""
    logits = Sequence.from_lengths(values[0], frames)
    return rnnt_cost(logits, Sequence.from_lengths(ids, labels)).nats.sum()


def double_scan(values: tuple[Any, ...], ids: Any, frames: Any, labels: Any) -> Any:
    """RNN-T as it is written down: a scan over labels in a scan over frames, differentiated."""
    log_probabilities = jax.nn.log_softmax(values[0], axis=-1)
    following = jnp.pad(ids, ((0, 0), (0, 1)))[:, None, :, None]
    blank = log_probabilities[..., 0]
    label = jnp.take_along_axis(log_probabilities, following, axis=-1)[..., 0]
    entering = jnp.pad(label[:, :, :-1], ((0, 0), (0, 0), (1, 0)), constant_values=ABSENT)

    def cell(left: Any, given: Any) -> tuple[Any, Any]:
        below, by_label = given
        reached = jnp.logaddexp(below, left + by_label)
        return reached, reached

    def row(below: Any, given: Any) -> tuple[Any, Any]:
        blank, entering = given
        start = jnp.full(below.shape[1:], ABSENT)
        _, reached = jax.lax.scan(cell, start, (below, entering))
        return reached + blank, reached + blank

    below = jnp.full((ids.shape[1] + 1, ids.shape[0]), ABSENT).at[0].set(0.0)
    _, left = jax.lax.scan(row, below, (blank.transpose(1, 2, 0), entering.transpose(1, 2, 0)))
    return -left[frames - 1, labels, jnp.arange(ids.shape[0])].sum()


def ours_joint(values: tuple[Any, ...], ids: Any, frames: Any, labels: Any) -> Any:
    """This package's joint and RNN-T in one."""
    encoder, predictor, kernel, bias = values
    return transducer_cost(
        Sequence.from_lengths(encoder, frames),
        predictor,
        Joint(kernel=kernel, bias=bias),
        Sequence.from_lengths(ids, labels),
    ).nats.sum()


def materialised(values: tuple[Any, ...], ids: Any, frames: Any, labels: Any) -> Any:
    """The joint's logits in memory, then this package's RNN-T."""
    encoder, predictor, kernel, bias = values
    hidden = jnp.tanh(encoder[:, :, None, :] + predictor[:, None, :, :])
    logits = hidden @ kernel + bias[None, None, None, :]
    return ours_rnnt((logits,), ids, frames, labels)


OURS = "modessm_jax"
LOSSES: dict[Kind, dict[str, Loss]] = {
    "ctc": {OURS: ours_ctc, "optax": optax_ctc},
    "rnnt": {OURS: ours_rnnt, "double scan, JAX": double_scan},
    "joint": {OURS: ours_joint, "materialised, JAX": materialised},
}
