"""Simulates intracortical speech recordings in the layout of T15.

    python -m experiments.simulate --out data/simulated

With --labels it takes the sessions, blocks, trials and sentences from a table instead of drawing
them (`modessm_jax/simulate/labels.py` has its columns):

    python -m experiments.simulate --out data/simulated_t15 --labels t15_labels.csv

With --compare it compares the simulator with a real recording instead, in a table and a picture:

    python -m experiments.simulate --compare trial_channels_by_bins.npy --picture simulator.png
"""

from pathlib import Path

import numpy as np
from absl import app, flags

from modessm_jax.simulate import comparison
from modessm_jax.simulate.calendar import TUNING_LOSS, Sizes, drawn
from modessm_jax.simulate.files import write_dataset
from modessm_jax.simulate.labels import read_plan

_OUT = flags.DEFINE_string("out", None, "Folder to write the data set to.")
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "Replace an earlier simulation in --out.")
_SESSIONS = flags.DEFINE_integer("sessions", 6, "Recording days.", lower_bound=1)
_TRAIN = flags.DEFINE_integer("train", 90, "Training sentences per session.", lower_bound=0)
_VAL = flags.DEFINE_integer("val", 20, "Validation sentences per session.", lower_bound=0)
_TEST = flags.DEFINE_integer("test", 10, "Test sentences per session.", lower_bound=0)
_MIN_WORDS = flags.DEFINE_integer("min_words", 3, "Words of the shortest sentences.", lower_bound=1)
_MAX_WORDS = flags.DEFINE_integer("max_words", 5, "Words of the longest sentences.", lower_bound=1)
_DRAWN = (_SESSIONS, _TRAIN, _VAL, _TEST, _MIN_WORDS, _MAX_WORDS)
_ELECTRODES = flags.DEFINE_integer(
    "electrodes", 256, "Electrodes on four arrays; each gives two features.", lower_bound=4
)
_TUNING_LOSS = flags.DEFINE_float(
    "tuning_loss", TUNING_LOSS, "Part of the electrodes' tuning that is lost in a week."
)
_LABELS = flags.DEFINE_string(
    "labels", None, "CSV of the sessions, blocks, trials and sentences to simulate."
)
_SEED = flags.DEFINE_integer("seed", 0, "Random seed.", lower_bound=0)
_COMPARE = flags.DEFINE_string(
    "compare", None, "A real trial as .npy [channels, 20 ms bins], normalised; writes no data set."
)
_PICTURE = flags.DEFINE_string(
    "picture", None, "Where --compare draws its picture (simulator.png)."
)


def main(argv: list[str]) -> None:
    if len(argv) > 1:
        raise app.UsageError(f"unknown arguments {argv[1:]}")
    if (_OUT.value is None) == (_COMPARE.value is None):
        raise app.UsageError("pass either --out or --compare")
    if _PICTURE.value is not None and _COMPARE.value is None:
        raise app.UsageError("--picture needs --compare")
    chosen = [f"--{flag.name}" for flag in (*_DRAWN, _COMPARE) if flag.present]
    if _LABELS.value is not None and chosen:
        raise app.UsageError(f"--labels goes without {', '.join(chosen)}")
    try:
        if _OUT.value is not None:
            write(Path(_OUT.value))
        if _COMPARE.value is not None:
            compare(Path(_COMPARE.value), Path(_PICTURE.value or "simulator.png"), _SEED.value)
    except (ValueError, OSError) as error:
        raise SystemExit(str(error)) from error


def write(out: Path) -> None:
    """Writes the data set that the flags plan."""
    rest = {
        "electrodes": _ELECTRODES.value,
        "seed": _SEED.value,
        "tuning_loss": _TUNING_LOSS.value,
    }
    if _LABELS.value is not None:
        plan = read_plan(Path(_LABELS.value), **rest)
    else:
        plan = drawn(Sizes(**{flag.name: flag.value for flag in _DRAWN}), **rest)
    bins = write_dataset(out, plan, overwrite=_OVERWRITE.value, report=print)
    print(f"{out}: " + ", ".join(f"{count:,} {split} bins" for split, count in bins.items()))


def compare(real_file: Path, picture: Path, seed: int) -> None:
    """Prints and draws the statistics of a real trial next to those of simulated ones."""
    real = np.load(real_file).astype(np.float32)
    simulated = comparison.simulated_like(real, seed)
    of_real, of_simulated = comparison.describe(real), comparison.describe(simulated)
    print(comparison.table(of_real, of_simulated))
    comparison.draw(of_real, of_simulated, picture)
    print(f"drawn to {picture}")


if __name__ == "__main__":
    app.run(main)
