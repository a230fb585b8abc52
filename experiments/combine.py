"""Combines the n-best lists of several systems into one sentence for every trial.

    python -m experiments.combine one/val.jsonl two/val.jsonl --out val.jsonl --data_root DATA
    python -m experiments.combine one/test.jsonl two/test.jsonl --out test.jsonl --data_root DATA \\
        --split test --calibrate_on one/val.jsonl two/val.jsonl

Systems are seeds, models, or one model on noisy copies of the data (`experiments.decode --noise`).
Each is a file of n-best lists, as `experiments.decode` writes them, of the same trials. --rule mbr
takes the sentence with the fewest expected word errors (minimum Bayes risk), --rule vote the one
with the most votes.

Without --calibrate_on only the best sentence of each list counts. With it all candidates do, by
probabilities that are fitted to the sentences of val. It takes the systems' lists of val, in the
order of the systems, decoded with one set of weights: without --tune.

Prints the word error rates of each system and of the combination if the split has sentences.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path

from modessm_jax.data.recordings import SPLITS, Key, list_trials
from modessm_jax.text import percent, total, word_edits
from modessm_jax.words.combination import calibrate, combine, minimum_bayes_risk, vote
from modessm_jax.words.nbest import read_nbest, scorable, write_texts

_RULES = {"mbr": minimum_bayes_risk, "vote": vote}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m experiments.combine", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("lists", type=Path, nargs="+", help="n-best lists of each system")
    parser.add_argument("--out", type=Path, required=True, help="file of JSON lines to write")
    parser.add_argument("--data_root", type=Path, required=True, help="folder of session folders")
    parser.add_argument("--split", choices=SPLITS, default="val", help="split of the lists (val)")
    parser.add_argument("--rule", choices=_RULES, default="mbr", help="rule to combine by (mbr)")
    parser.add_argument(
        "--calibrate_on", type=Path, nargs="+", help="n-best lists of val of each system (none)"
    )
    given = parser.parse_args(arguments)
    if given.calibrate_on is not None and len(given.calibrate_on) != len(given.lists):
        parser.error(f"--calibrate_on needs {len(given.lists)} files, one for each system")
    try:
        scales = None
        if given.calibrate_on is not None:
            val = list_trials(given.data_root, "val")
            known = [scorable(read_nbest(path), val) for path in given.calibrate_on]
            scales = [calibrate(lists, _sentences(val)) for lists in known]
        systems = [read_nbest(path) for path in given.lists]
        combined = combine(systems, _RULES[given.rule], scales=scales)
        index = list_trials(given.data_root, given.split)
        others = combined.keys() - index.keys()
        if others:
            raise ValueError(f"{len(others)} trials are not in {given.split}; give their --split")
        write_texts(given.out, combined)
    except (ValueError, OSError, ImportError) as error:
        raise SystemExit(str(error)) from error
    references = _sentences(index)
    scored = {one.key for one in scorable(systems[0], index)}
    for number, (path, system) in enumerate(zip(given.lists, systems, strict=True)):
        note = "" if scales is None else f", scale {scales[number]:.3g}"
        texts = {one.key: one.text for one in system if one.key in scored}
        print(f"{_rate(texts, references)}  {path}{note}")
    texts = {key: text for key, text in combined.items() if key in scored}
    print(f"{_rate(texts, references)}  {given.out}: {len(combined)} trials, by {given.rule}")


def _sentences(index: Mapping[Key, str | None]) -> dict[Key, str]:
    return {key: sentence for key, sentence in index.items() if sentence is not None}


def _rate(texts: Mapping[Key, str], references: Mapping[Key, str]) -> str:
    if not references:
        return "no WER"
    return percent(total(word_edits(references[key], text) for key, text in texts.items()).rate)


if __name__ == "__main__":
    main()
