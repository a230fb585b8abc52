"""Scores the best model of a training run on a split, and prints the error rates.

    python -m experiments.evaluate --workdir RUN --split val --predictions val.jsonl
    python -m experiments.evaluate --workdir RUN --split val --picture trial.png
    python -m experiments.evaluate --workdir RUN --beam 4 --phoneme_lm lm/phonemes.arpa

A split without labels gets predictions and counts only. Each line of the predictions is JSON:
session, block_num, trial_num and the greedily decoded phoneme ids; for a transducer also its own,
greedy or of the beam, and the probabilities of the speaking modes. The picture shows the trial of
median length. An n-gram of phonemes, which `experiments.language_model phonemes` makes, joins the
transducer's beam; choose its weight on val.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from modessm_jax.data.recordings import SPLITS
from modessm_jax.evaluation.picture import write_picture
from modessm_jax.evaluation.report import format_table
from modessm_jax.evaluation.scoring import evaluate_run
from modessm_jax.language.ngram import NGram
from modessm_jax.language.phoneme_ngram import phoneme_fusion
from modessm_jax.runs.load import load_run
from modessm_jax.runs.sessions import add_arguments, choice_of
from modessm_jax.runtime.compile_cache import compile_cache
from modessm_jax.runtime.files import write_text

LM_WEIGHT = 0.2


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m experiments.evaluate", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--workdir", type=Path, required=True, help="of the training run")
    parser.add_argument("--split", choices=SPLITS, default="val", help="which trials (val)")
    parser.add_argument("--predictions", type=Path, help="JSON lines file to write")
    parser.add_argument("--picture", type=Path, help="PNG to draw of one decoded trial")
    parser.add_argument("--data_root", type=Path, help="where the data are, if they have moved")
    parser.add_argument("--beam", type=int, default=1, help="width of the transducer's beam (1)")
    parser.add_argument("--phoneme_lm", type=Path, help="n-gram of phonemes for the beam (none)")
    parser.add_argument(
        "--lm_weight", type=float, help=f"factor of its log-probability ({LM_WEIGHT})"
    )
    parser.add_argument(
        "--denoise", action="store_true", help="denoise the features with the flow bridge"
    )
    add_arguments(parser)
    options = parser.parse_args(arguments)
    if options.lm_weight is not None and options.phoneme_lm is None:
        parser.error("--lm_weight needs --phoneme_lm")
    scoring: dict[str, Any] = {"width": options.beam, "denoise": options.denoise}
    try:
        if options.phoneme_lm is not None:
            weight = LM_WEIGHT if options.lm_weight is None else options.lm_weight
            scoring["fusion"] = phoneme_fusion(NGram(options.phoneme_lm), weight)
        with compile_cache(options.workdir / "compiled"):
            run = load_run(options.workdir)
            choice = choice_of(options, run.config["data"])
            evaluation = evaluate_run(run, options.split, options.data_root, choice, **scoring)
        print(f"{options.workdir}, best model, step {run.step}")
        print(format_table(evaluation))
        if options.predictions is not None:
            lines = [json.dumps(result.prediction()) + "\n" for result in evaluation.trials]
            write_text(options.predictions, "".join(lines))
        if options.picture is not None:
            write_picture(options.picture, evaluation.example)
    except (ValueError, OSError, ImportError) as error:
        raise SystemExit(str(error)) from error


if __name__ == "__main__":
    main()
