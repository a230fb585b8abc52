"""Prints what was said in a split, one normalised sentence a line: text for a language model.

    python -m experiments.transcripts --root DATA --split train > train.txt
    python -m experiments.transcripts --root DATA --split train --words > words.txt

With --words every word once instead, in alphabetical order: the vocabulary of a lexicon.
"""

import argparse
from pathlib import Path

from modessm_jax.data.recordings import read_transcripts, vocabulary
from modessm_jax.data.validation import DataError


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m experiments.transcripts", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--root", type=Path, required=True, help="folder of session folders")
    parser.add_argument("--split", choices=("train", "val"), default="train", help="(train)")
    parser.add_argument("--words", action="store_true", help="print the vocabulary instead")
    options = parser.parse_args(arguments)
    try:
        sentences = read_transcripts(options.root, options.split)
    except DataError as error:
        raise SystemExit(str(error)) from error
    print("\n".join(vocabulary(sentences) if options.words else sentences))


if __name__ == "__main__":
    main()
