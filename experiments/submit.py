"""Writes or checks a submission: the file of test sentences that a benchmark scores.

    python -m experiments.submit --data_root DATA --hypotheses test.jsonl --out submission.csv
    python -m experiments.submit --data_root DATA --check submission.csv

The hypotheses are JSON lines, as `experiments.decode` and `experiments.combine` write them: n-best
lists, of which the best sentence is taken, or sentences. A file that ends in .csv is for
Brain-to-Text '25 (Kaggle), one that ends in .txt for Brain-to-Text '24 (EvalAI). A trial without a
sentence is an error.

--check changes nothing, prints every problem with its line, and exits with status 1 if there is
one. With --hypotheses it also compares every sentence with the decoded one.
"""

import argparse
from pathlib import Path

from modessm_jax.data.recordings import SPLITS, list_trials
from modessm_jax.words.nbest import read_texts
from modessm_jax.words.submission import check_submission, write_submission

_SHOWN = 20


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m experiments.submit", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--data_root", type=Path, required=True, help="folder of session folders")
    parser.add_argument("--split", choices=SPLITS, default="test", help="split to submit (test)")
    parser.add_argument(
        "--hypotheses", type=Path, help="JSON lines of the decoded sentences (none)"
    )
    job = parser.add_mutually_exclusive_group(required=True)
    job.add_argument("--out", type=Path, help="file to write, .csv or .txt")
    job.add_argument("--check", type=Path, help="file to check, .csv or .txt")
    options = parser.parse_args(arguments)
    if options.out is not None and options.hypotheses is None:
        parser.error("--out needs --hypotheses")
    try:
        index = list(list_trials(options.data_root, options.split))
        texts = None if options.hypotheses is None else read_texts(options.hypotheses)
        if options.out is not None:
            write_submission(options.out, index, texts or {})
        file = options.out or options.check
        problems = check_submission(file, index, texts)
    except (ValueError, OSError) as error:
        raise SystemExit(str(error)) from error
    for problem in problems[:_SHOWN]:
        print(problem)
    if len(problems) > _SHOWN:
        print(f"... and {len(problems) - _SHOWN} more")
    if problems:
        raise SystemExit(f"{file}: {len(problems)} problems; do not submit it")
    print(f"{file}: {len(index)} sentences of the {options.split} split, ready to submit")
    if file.suffix == ".txt" and texts is None:
        print("Plain text has no ids: pass --hypotheses as well, to check the order")


if __name__ == "__main__":
    main()
