"""Trains a decoder, or goes on with a run that was interrupted.

    python -m experiments.train --config=configs/multiscale.py:small \\
        --config.data.root=DATA --workdir=RUN

Any key of the config can be overridden (`--config.optimizer.peak_lr=3e-4`). The same command, run
again, resumes from the last checkpoint. Where RUN is complete it is only scored again.

SIGTERM or SIGINT (Ctrl-C) saves after the step at hand and exits with status 75: run again to go
on. A second one ends the process at once. Bad input, and a disk that takes no more, exit with 1.

On several machines, or in several processes of one, start the same command in each, with
--distributed=auto where SLURM, Open MPI, Kubernetes or a TPU pod tells who is who, and with
--distributed=HOST:PORT,PROCESSES,INDEX anywhere else. All of them need to see RUN and DATA. A
signal to one of them is one to all.
"""

from pathlib import Path

from absl import app, flags, logging
from ml_collections import config_flags

from modessm_jax.runtime.compile_cache import compile_cache
from modessm_jax.runtime.preemption import EXIT_STATUS, PreemptedError, Preemption
from modessm_jax.runtime.processes import join, only_first_prints
from modessm_jax.training.job import run

_CONFIG = config_flags.DEFINE_config_file("config", None, "Recipe, e.g. configs/multiscale.py.")
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "Folder of the run: checkpoints, metrics, report.", required=True
)
_DISTRIBUTED = flags.DEFINE_string(
    "distributed", None, "This process is one of several: auto, or HOST:PORT,PROCESSES,INDEX."
)


def parse(arguments: list[str]) -> list[str]:
    """Reads the command line; a key that the config does not have is said in one line."""
    try:
        return app.parse_flags_with_usage(arguments)
    except AttributeError as error:
        if not isinstance(error.args[0], KeyError):
            raise  # a fault in the config's own code
        problem = str(error.args[0].args[0]).replace("\n", ". ")
        raise SystemExit(f"the config has no key {problem}") from error


def main(argv: list[str]) -> None:
    if len(argv) > 1:
        raise app.UsageError(f"unknown arguments {argv[1:]}")
    logging.set_verbosity(logging.WARNING)  # progress is printed; the rest is Orbax's small talk
    workdir = Path(_WORKDIR.value)
    try:
        if _DISTRIBUTED.value is not None:
            join(_DISTRIBUTED.value)
        with (
            only_first_prints(),
            compile_cache(workdir / "compiled"),
            Preemption() as preemption,
        ):
            run(_CONFIG.value, workdir, stop=preemption.reached)
    except PreemptedError as error:
        print(error)
        raise SystemExit(EXIT_STATUS) from error
    except (ValueError, OSError) as error:
        raise SystemExit(f"{type(error).__name__}: {error}") from error


if __name__ == "__main__":
    flags.mark_flag_as_required("config")
    app.run(main, flags_parser=parse)
