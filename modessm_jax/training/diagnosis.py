"""Finding out why a step is not finite: which numbers, which trials, which layer first."""

import dataclasses
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from modessm_jax.data.batches import Batch
from modessm_jax.phonemes import BLANK, CLASSES
from modessm_jax.runs.state import TrainState, by_path
from modessm_jax.runtime.mesh import split_batch
from modessm_jax.training.stages import StagePlan
from modessm_jax.training.step import StepSpec, make_gradient

_LIBRARIES = {"jax", "jaxlib", "flax", "optax", "jaxtyping", "beartype"}
_SHOWN = 8


def diagnose(
    params: Any,
    step: int,
    batch: Batch,
    trial_name: Callable[[int], str],
    spec: StepSpec,
    plan: StagePlan,
) -> str:
    """Repeats a step that was not finite, trial by trial, and describes what is wrong where.

    It compiles the gradient anew and runs it once for every trial; that takes minutes for a large
    model.
    `params` are those before the step, of which `step` came before; `batch` is in host memory.
    """

    def names(rows: Any) -> str:
        return _some([trial_name(int(batch.trial[row])) for row in np.flatnonzero(rows)])

    real = batch.trial >= 0
    values = np.where(batch.features.mask[:, :, None], batch.features.values, 0.0)
    strange = (batch.labels.values <= BLANK) | (batch.labels.values >= CLASSES)
    count = jnp.asarray(step, jnp.int32)

    gradient_of = make_gradient(spec, plan)

    @jax.jit
    def figures(params: Any, batch: Batch) -> tuple[Any, Any, Any]:
        loss, _, _, gradient = gradient_of(params, count, batch, spec.seed)
        return loss, optax.tree.norm(gradient), jax.tree.map(optax.tree.norm, gradient)

    def measure(batch: Batch) -> tuple[Any, Any, Any]:
        return jax.device_get(figures(params, split_batch(batch, spec.mesh)))

    loss, norm, norms = measure(batch)
    alone = [measure(_only(batch, row)) if real[row] else (0.0, 0.0) for row in range(len(real))]
    bad = np.array([not np.isfinite(found[:2]).all() for found in alone])
    lines = [
        f"loss {loss:g}, gradient norm {norm:g}",
        f"parameters that are not finite: {_some(nonfinite_paths(params))}",
        f"trials with features that are not finite: {names(real & ~_finite_rows(values))}",
        f"trials with labels that are no phonemes: "
        f"{names(real & (strange & batch.labels.mask).any(axis=1))}",
        f"trials that are not finite by themselves: {names(bad)}"
        + ("" if bad.any() else f"; together: {names(real)}"),
        f"first NaN: {_first_nan(params, count, batch, bad, spec, plan)}",
        "gradient norms by module: "
        + ", ".join(f"{name} {norm:.3g}" for name, norm in by_module(norms).items()),
    ]
    return "\n".join(f"  {line}" for line in lines)


def diagnose_state(state: TrainState) -> str:
    """Names what is not finite in a state whose steps all were."""
    parts = {"params": state.params, "ema": state.ema, "optimizer": state.opt_state}
    return f"  not finite in the state: {_some(nonfinite_paths(parts))}"


def nonfinite_paths(params: Any) -> list[str]:
    """The paths of parameters that hold NaN or infinity."""
    leaves = by_path(params).items()
    return [path for path, leaf in leaves if not np.isfinite(np.asarray(leaf)).all()]


def by_module(norms: Any) -> dict[str, float]:
    """From the norm of each parameter to that of each module, two levels deep at most."""
    squares: dict[str, float] = {}
    for path, norm in by_path(norms).items():
        module = "/".join(path.split("/")[:-1][:2])
        squares[module] = squares.get(module, 0.0) + float(norm) ** 2
    return {module: float(np.sqrt(square)) for module, square in squares.items()}


def _first_nan(
    params: Any, step: Any, batch: Batch, bad: np.ndarray, spec: StepSpec, plan: StagePlan
) -> str:
    """Where an operation makes NaN of numbers, found by running one of the bad trials eagerly."""
    gradient_of = make_gradient(dataclasses.replace(spec, accumulate=1), plan)
    rows = np.flatnonzero(bad)[:1] if bad.any() else np.arange(len(bad))
    some = jax.tree.map(lambda x: jnp.asarray(x[rows]), batch)
    params = jax.device_put(jax.device_get(params), jax.local_devices()[0])
    try:
        with jax.debug_nans(True):
            gradient_of(params, step, some, spec.seed)
    except FloatingPointError as error:
        return _place(error)
    return "none; what is not finite is an overflow"


def _place(error: BaseException) -> str:
    """The innermost line outside of the libraries, with the modules that led to it."""
    # In a backward pass JAX gives the operation that is being differentiated as the cause.
    origin = error.__cause__
    where = "" if origin is None else "in the backward pass of "
    frames = [
        (frame, line)
        for frame, line in traceback.walk_tb((origin or error).__traceback__)
        if not set(Path(frame.f_code.co_filename).parts) & _LIBRARIES
    ]
    frame, line = frames[-1]
    modules = " > ".join(_modules(frame for frame, _ in frames))
    within = f" ({modules})" if modules else ""
    code = frame.f_code
    return f"{where}{code.co_qualname}, line {line} of {code.co_filename}{within}: {error}"


def _modules(frames: Iterator[Any]) -> Iterator[str]:
    """Names the objects whose methods called each other, as attributes of the one before."""
    former = None
    for frame in frames:
        module = frame.f_locals.get("self")
        if module is not None and module is not former:
            yield _attribute(former, module) or type(module).__name__
            former = module


def _attribute(parent: Any, child: Any) -> str | None:
    for name, value in vars(parent).items() if hasattr(parent, "__dict__") else ():
        if value is child:
            return name
        if isinstance(value, Sequence) and any(part is child for part in value):
            return f"{name}[{[part is child for part in value].index(True)}]"
    return None


def _only(batch: Batch, row: int) -> Batch:
    """The batch with all rows but one turned into padding."""
    others = np.arange(len(batch.trial)) != row

    def without(sequence: Any) -> Any:
        return type(sequence)(sequence.values, np.where(others[:, None], False, sequence.mask))

    return dataclasses.replace(
        batch,
        features=without(batch.features),
        labels=without(batch.labels),
        trial=np.where(others, -1, batch.trial).astype(np.int32),
    )


def _finite_rows(values: np.ndarray) -> np.ndarray:
    return np.array([np.isfinite(row).all() for row in values])


def _some(names: list[str]) -> str:
    more = len(names) - _SHOWN
    return (", ".join(names[:_SHOWN]) or "none") + (f" and {more} more" if more > 0 else "")
