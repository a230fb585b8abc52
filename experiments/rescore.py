"""Re-ranks n-best lists with a language model that the search could not use.

    python -m experiments.rescore test.jsonl --model opt-125m --lm_weight 0.9 \\
        --tune_on val.jsonl --data_root DATA --out rescored.jsonl
    python -m experiments.rescore test.jsonl --model large.arpa --lm_weight 0.9 --alpha 0.5 \\
        --out rescored.jsonl

The model is a folder with a causal language model of the Hugging Face library, or the file of an
n-gram, ARPA or KenLM binary. --lm_weight is the n-gram weight of the search; --alpha is the share
of it that the new model gets. --tune_on chooses alpha for the fewest word errors in lists of val,
decoded with one set of weights: without --tune. The error rate of those same lists after rescoring
is too optimistic.
"""

import argparse
from pathlib import Path

from modessm_jax.data.recordings import list_trials
from modessm_jax.language.ngram import NGram
from modessm_jax.words.nbest import Utterance, read_nbest, scorable, write_nbest
from modessm_jax.words.rescoring import (
    SentenceModel,
    TransformersModel,
    rescore,
    score_candidates,
    tune_alpha,
)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m experiments.rescore", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("lists", type=Path, help="n-best lists, as experiments.decode writes")
    parser.add_argument("--model", type=Path, required=True, help="folder, or file of an n-gram")
    parser.add_argument(
        "--device", default="cpu", help="device of a neural model: cpu or cuda (cpu)"
    )
    parser.add_argument(
        "--lm_weight", type=float, required=True, help="n-gram weight of the search"
    )
    parser.add_argument("--out", type=Path, required=True, help="file of JSON lines to write")
    either = parser.add_mutually_exclusive_group(required=True)
    either.add_argument("--alpha", type=float, help="share of the new model, 0 to 1")
    either.add_argument("--tune_on", type=Path, help="n-best lists of val to choose alpha on")
    parser.add_argument("--data_root", type=Path, help="folder of session folders, for --tune_on")
    given = parser.parse_args(arguments)
    if (given.tune_on is None) != (given.data_root is None):
        parser.error("--tune_on and --data_root go together")
    try:
        lists = read_nbest(given.lists)
        model = _load(given.model, given.device, lists)
        alpha = given.alpha
        if given.tune_on is not None:
            index = list_trials(given.data_root, "val")
            val = scorable(read_nbest(given.tune_on), index)
            references = {key: sentence for key, sentence in index.items() if sentence is not None}
            scores = score_candidates(val, model)
            alpha = tune_alpha(val, scores, references, lm_weight=given.lm_weight)
        scores = score_candidates(lists, model)
        ranked = rescore(lists, scores, alpha=alpha, lm_weight=given.lm_weight)
        write_nbest(given.out, ranked)
    except (ValueError, OSError, ImportError) as error:
        raise SystemExit(str(error)) from error
    other = sum(one.text != before.text for one, before in zip(ranked, lists, strict=True))
    print(
        f"{given.out}: alpha {alpha:g}; {other} of {len(lists)} trials have another sentence first"
    )


def _load(path: Path, device: str, lists: list[Utterance]) -> SentenceModel:
    if path.is_dir():
        return TransformersModel(path, device)
    ngram = NGram(path)
    ngram.lacking({word for each in lists for one in each.candidates for word in one.text.split()})
    return lambda sentences: [ngram.score(sentence.split()) for sentence in sentences]


if __name__ == "__main__":
    main()
