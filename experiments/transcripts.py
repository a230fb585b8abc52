"""Prints the sentences of a split, cleaned, one a line: text for a language model.

    python -m experiments.transcripts --data_root DATA --split train > train.txt
    python -m experiments.transcripts --data_root DATA --split train --words > words.txt

With --words prints every word once instead, in alphabetical order: the vocabulary of a lexicon.
"""

import argparse
from pathlib import Path

from modessm_jax.data.recordings import read_transcripts
from modessm_jax.data.validation import DataError


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m experiments.transcripts", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--data_root", type=Path, required=True, help="folder of session folders")
    parser.add_argument(
        "--split", choices=("train", "val"), default="train", help="split to print (train)"
    )
    parser.add_argument("--words", action="store_true", help="print the vocabulary instead (no)")
    options = parser.parse_args(arguments)
    try:
        sentences = read_transcripts(options.data_root, options.split)
    except DataError as error:
        raise SystemExit(str(error)) from error
    words = sorted(set(" ".join(sentences).split()))
    print("\n".join(words if options.words else sentences))


if __name__ == "__main__":
    main()
