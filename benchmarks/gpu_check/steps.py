"""A training step of a recipe: milliseconds, memory, and its share of the matrix ceiling.

Random trials of 2,400 bins and 512 channels from 45 sessions, as long as the longest of T15. Of
MODE-SSM it is the stage that trains CTC and RNN-T. Operations are those of the lowered program, in
which XLA counts the body of a loop once; the gradient of the losses is hardly any of them.
"""

import time

import jax

from benchmarks.gpu_check import programs
from benchmarks.gpu_check.device import matrix_ceiling
from benchmarks.losses.report import table
from benchmarks.recipe import first_step, random_batch
from configs import modessm, multiscale
from modessm_jax.runs.load import build_model
from modessm_jax.runtime.mesh import data_mesh
from modessm_jax.training.step import shard_batch

RECIPES = {"multiscale": multiscale, "modessm": modessm}
BINS, CHANNELS, SESSIONS, LABELS = 2400, 512, 45, 60
TOY = 240, 16, 2, 8


def main() -> None:
    parser = programs.parser(__doc__)
    parser.add_argument("recipe", choices=sorted(RECIPES))
    parser.add_argument("batch", type=int)
    options = parser.parse_args()
    bins, channels, sessions, labels = TOY if options.smoke else (BINS, CHANNELS, SESSIONS, LABELS)
    config = RECIPES[options.recipe].get_config("small" if options.smoke else "").to_dict()
    if options.recipe == "modessm":
        config["stages"]["order"] = ("joint",)
    model = build_model(config, channels, sessions)
    mesh = data_mesh(jax.devices()[:1])
    step, state = first_step(config, model, mesh, ema_decay=config["training"]["ema_decay"])
    batch = shard_batch(random_batch([bins] * options.batch, channels, sessions, labels), mesh)
    lowered = step.lower(state, batch)
    operations = (lowered.cost_analysis() or {}).get("flops", 0.0)
    start = time.perf_counter()
    program = lowered.compile()
    compiling = time.perf_counter() - start
    memory = program.memory_analysis()
    rows = [
        ("parameters", f"{sum(leaf.size for leaf in jax.tree.leaves(model.params)):,}"),
        ("seconds to compile", f"{compiling:.1f}"),
        ("temporaries by the compiler, GiB", f"{memory.temp_size_in_bytes / programs.GIB:.2f}"),
        ("arguments, GiB", f"{memory.argument_size_in_bytes / programs.GIB:.2f}"),
        ("operations of the lowered program", f"{operations:.3g}"),
    ]
    print(table(("", ""), rows), flush=True)

    def call() -> None:
        nonlocal state
        state, report = program(state, batch)
        jax.block_until_ready(report)

    with programs.alone():
        ceiling = matrix_ceiling(options.smoke)
        found = programs.times(call, rounds=7)
    peak = (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use", 0)
    share = operations / found.median / ceiling
    for name, value in (
        ("ms, median and quartiles", programs.milliseconds(found)),
        ("peak memory, GiB", f"{peak / programs.GIB:.2f}"),
        ("share of the bfloat16 ceiling", f"{share:.1%} of {ceiling / 1e12:.0f} TFLOP/s"),
    ):
        print(f"| {name} | {value} |")


if __name__ == "__main__":
    main()
