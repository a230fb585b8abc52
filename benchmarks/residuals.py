"""What a training step keeps in memory for its backward pass: bytes by recipe, batch and bins.

    python -m benchmarks.residuals --out benchmarks/results/residuals.md

The step is traced, not compiled, so that no accelerator is needed: residuals are what the forward
pass hands to the backward pass; the peak is the most that the two need at once, in the order of the
program and without what a compiler saves by fusing operations. The whole program has dropped what
is handed over and not used. Parameters, the optimiser's state and the batch are left out. What
`model.remat` computes again adds to the floating-point operations of matrix products and
convolutions, which are counted too. Writes the table to --out.
"""

import argparse
import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from modessm_jax.augmentation.augment import Augmentation, Corruption
from modessm_jax.blocks.block import REMAT
from modessm_jax.data.batches import Batch
from modessm_jax.runs.load import build_shapes
from modessm_jax.runtime.mesh import data_mesh
from modessm_jax.sequence import Sequence
from modessm_jax.training.stages import plan_stages
from modessm_jax.training.step import StepSpec, make_loss
from studies.shared import table

CHANNELS, SESSIONS, LABELS = 512, 45, 128  # of T15
# Recipes, by the stage that keeps most.
RECIPES = ("multiscale", "modessm/joint", "modessm/mode", "conformer", "transformer", "gru")


class Cost(NamedTuple):
    """Of a forward and backward pass: bytes of its residuals, bytes at its peak, operations."""

    residuals: int
    peak: int
    operations: int


def cost(recipe: str, rows: int, bins: int, **model: Any) -> Cost:
    """The cost of one step of a recipe, "config:variant/stage", with changes to its model."""
    name, _, stage = recipe.partition("/")
    name, _, variant = name.partition(":")
    config = importlib.import_module(f"configs.{name}").get_config(variant).to_dict()
    config["model"] |= model
    functional = build_shapes(config, CHANNELS, SESSIONS)
    plans = plan_stages(config, functional.params)
    spec = StepSpec(
        functional.apply,
        config["objective"]["normalize_by"],
        seed=0,
        mesh=data_mesh(jax.devices()[:1]),
        augment=Augmentation(**config["augment"]),
        corrupt=Corruption(**config["corruption"]) if "corruption" in config else None,
        tie_modes=config["objective"].get("tie_modes", False),
    )
    loss = make_loss(spec, next(plan for plan in plans if not stage or plan.stage.name == stage))

    def kept(params: Any, batch: Batch) -> Any:
        return jax.vjp(lambda params: loss(params, 0, batch, 0), params, has_aux=True)[1]

    def gradient(params: Any, batch: Batch) -> Any:
        return jax.grad(lambda params: loss(params, 0, batch, 0), has_aux=True)(params)[0]

    given = functional.params, _batch(rows, bins)
    forward = jax.make_jaxpr(kept)(*given).jaxpr
    both = jax.make_jaxpr(gradient)(*given).jaxpr
    return Cost(residuals(forward), peak(both), operations(both))


def _batch(rows: int, bins: int) -> Batch:
    """The shapes of a batch."""

    def zeros() -> Batch:
        numbers = jnp.zeros(rows, jnp.int32)
        x = Sequence(jnp.zeros((rows, bins, CHANNELS)), jnp.ones((rows, bins), bool))
        labels = Sequence(jnp.ones((rows, LABELS), jnp.int32), jnp.ones((rows, LABELS), bool))
        return Batch(x, labels, numbers, numbers, numbers)

    return jax.eval_shape(zeros)


def residuals(jaxpr: Any) -> int:
    """Bytes of the results that are not arguments, each once."""
    computed = {id(var) for equation in jaxpr.eqns for var in equation.outvars}
    kept = {id(var): _bytes(var) for var in jaxpr.outvars if id(var) in computed}
    return sum(kept.values())


def peak(jaxpr: Any) -> int:
    """Most bytes of computed arrays that are needed at once, in the order of the program."""
    last = {id(var): at for at, equation in enumerate(jaxpr.eqns) for var in equation.invars}
    last |= {id(var): len(jaxpr.eqns) for var in jaxpr.outvars}
    alive: dict[int, int] = {}
    most = 0
    for at, equation in enumerate(jaxpr.eqns):
        inside = max((peak(part) for part in _inside(equation.params)), default=0)
        made = {id(var): _bytes(var) for var in equation.outvars}
        most = max(most, sum(alive.values()) + max(inside, sum(made.values())))
        alive = {var: size for var, size in (alive | made).items() if last.get(var, -1) > at}
    return most


def _bytes(var: Any) -> int:
    return var.aval.size * var.aval.dtype.itemsize


def operations(jaxpr: Any) -> int:
    """Multiplications and additions of all matrix products and convolutions."""
    total = 0
    for equation in jaxpr.eqns:
        kind, params = equation.primitive.name, equation.params
        inner = [operations(part) for part in _inside(params)]
        if kind == "dot_general":
            contracted = params["dimension_numbers"][0][0]
            shape = equation.invars[0].aval.shape
            depth = np.prod([shape[axis] for axis in contracted], dtype=int)
            total += 2 * equation.outvars[0].aval.size * int(depth)
        elif kind == "conv_general_dilated":
            kernel = equation.invars[1].aval.shape
            features = kernel[params["dimension_numbers"].rhs_spec[0]]
            total += 2 * equation.outvars[0].aval.size * int(np.prod(kernel)) // features
        elif kind == "cond":
            total += max(inner)
        else:
            total += params.get("length", 1) * sum(inner)
    return total


def _inside(params: dict[str, Any]) -> Iterator[Any]:
    """The programs that an equation runs."""
    for value in params.values():
        for part in value if isinstance(value, tuple | list) else (value,):
            part = getattr(part, "jaxpr", part)  # a closed one holds one
            if hasattr(part, "eqns"):
                yield part


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.residuals", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--recipes", nargs="+", default=RECIPES, help="CONFIG[:VARIANT][/STAGE]")
    parser.add_argument("--batch", type=int, nargs="+", default=[64], help="trials (64)")
    parser.add_argument("--bins", type=int, nargs="+", default=[2400], help="of a trial (2400)")
    parser.add_argument("--out", type=Path, help="file for the table")
    options = parser.parse_args(arguments)
    rows = []
    for recipe in options.recipes:
        for batch in options.batch:
            for bins in options.bins:
                found = {remat: cost(recipe, batch, bins, remat=remat) for remat in REMAT}
                for remat, one in found.items():
                    share = one.operations / found["none"].operations
                    sizes = (f"{size / 2**30:.1f}" for size in (one.residuals, one.peak))
                    rows.append([recipe, str(batch), str(bins), remat, *sizes, f"{share:.2f}"])
                    print(" ".join(rows[-1]), flush=True)
    header = ["recipe", "trials", "bins", "remat", "residuals, GiB", "peak, GiB", "operations"]
    text = table(header, rows)
    if options.out is not None:
        options.out.write_text(f"{text}\n\njax {jax.__version__}\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
