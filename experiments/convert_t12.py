"""Converts the recordings of participant T12 (Brain-to-Text '24) to the layout of T15.

    python -m experiments.convert_t12 --mat competitionData --out ROOT

Then train with `--config.data.root=ROOT`. The data are on Dryad, doi 10.5061/dryad.x69p8czpq,
competitionData.tar.gz. The command stops at words that the CMU Pronouncing Dictionary lacks and
lists them; give their phonemes in a file (`--additions FILE`), one word a line.
"""

import argparse
from pathlib import Path

from absl import logging

from modessm_jax.data.pronunciations import Pronunciations
from modessm_jax.data.t12 import convert
from modessm_jax.data.validation import DataError


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m experiments.convert_t12", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--mat", type=Path, required=True, help="the folder competitionData")
    parser.add_argument("--out", type=Path, required=True, help="the root to write")
    parser.add_argument("--additions", type=Path, help="pronunciations to add to the dictionary's")
    parser.add_argument(
        "--exclude_unknown",
        action="store_true",
        help="leave out training sentences with words that have no pronunciation",
    )
    parser.add_argument("--no_log", action="store_true", help="keep counts and power as they are")
    parser.add_argument("--no_zscore", action="store_true", help="do not z-score within blocks")
    options = parser.parse_args(arguments)
    logging.set_verbosity(logging.INFO)
    try:
        counts = convert(
            options.mat,
            options.out,
            Pronunciations(options.additions),
            exclude_unknown=options.exclude_unknown,
            log=not options.no_log,
            zscore=not options.no_zscore,
        )
    except (DataError, OSError) as error:
        raise SystemExit(str(error)) from error
    for split, count in counts.items():
        print(f"{split}: {count} sentences")


if __name__ == "__main__":
    main()
