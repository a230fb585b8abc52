"""Decodes a split into words, and reports word error rates.

    python -m experiments.decode --workdir RUN --split val --lexicon LEXICON --lm LM.arpa --tune
    python -m experiments.decode --workdir RUN --head rnnt --beam 50 --lexicon LEXICON ...
    python -m experiments.decode --logits val_metrics.pkl --data_root DATA --out OUT ...

The search takes the phoneme probabilities of a run's best model, or with --head rnnt its
transducer, or with --logits the logits of the official Brain-to-Text '25 pipeline: val_metrics.pkl,
with args.yaml beside it. --save_logits writes those two files. The transducer's predictor and joint
network run for every hypothesis, so its search takes many times as long: use a narrower --beam.

LM is an n-gram, ARPA or KenLM binary; without it all sentences of the lexicon are equally likely.
--tune chooses n-gram weight, word score and blank penalty on val, whichever split is decoded. Val
itself is cut in two halves, each decoded with the weights chosen on the other. Tuned weights are
kept in OUT, with a picture, and used again. Without --tune the weights are those given here. With a
transducer and an n-gram words tend to be left out: try a higher --word_score. A blank penalty helps
too; for a transducer it is tuned only if values are given.

--denoise runs the flow bridge of a modessm on the features first. --noise adds Gaussian noise to
the features, another draw for each --noise_seed; `experiments.combine` combines the results.

Writes to OUT (by default words/ in RUN, or words_rnnt/, words_denoised/, words_noisy_<noise_seed>/,
...): n-best lists as JSON lines (SPLIT.jsonl; session, block_num, trial_num and candidates with
their scores in nats), figures (SPLIT.json) and a picture (SPLIT.png). A split without sentences
gets n-best lists only. Error rates are also given apart for sentences that the training split or
the files of --text contain, and for all others.
"""

import argparse
import os
from dataclasses import fields
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from modessm_jax.data.recordings import SPLITS, read_transcripts
from modessm_jax.evaluation.official_logits import read_official_logits, write_official_logits
from modessm_jax.evaluation.posteriors import (
    Noise,
    Posteriors,
    posteriors_from,
    posteriors_of,
)
from modessm_jax.evaluation.scoring import check_abilities
from modessm_jax.language.lexicon import Lexicon
from modessm_jax.language.text_files import lines
from modessm_jax.runs.load import load_run
from modessm_jax.runs.sessions import add_arguments, choice_of
from modessm_jax.runtime.compile_cache import compile_cache

try:
    from modessm_jax.search.options import SearchOptions
    from modessm_jax.words.decoder import Vocabulary
    from modessm_jax.words.job import WordJob
    from modessm_jax.words.report import format_words
    from modessm_jax.words.tuning import Grid, Weights
except ImportError as error:
    raise SystemExit(str(error)) from error

_HELP = {
    "beam": "hypotheses kept after each frame",
    "beam_threshold": "nats below the best at which a hypothesis is dropped",
    "lm_weight": "factor of the n-gram's log-probability",
    "word_score": "nats added for each word",
    "acoustic_scale": "factor of the acoustic log-probability",
    "blank_penalty": "divides the blank's probability",
    "nbest": "the most hypotheses written for each trial",
}


def main(arguments: list[str] | None = None) -> None:
    given = _parser().parse_args(arguments)
    try:
        decode(given)
    except (ValueError, OSError, MemoryError, ImportError) as error:
        raise SystemExit(str(error)) from error


def decode(given: argparse.Namespace) -> None:
    """Decodes a split as the command line says, writes the results and prints them.

    Raises:
        ValueError: an argument or a file is missing or unfit; the message names it.
    """
    job = _job(given)
    if given.workdir is None:
        source, root, sessions = partial(_recorded, given), given.data_root, None
        title = str(given.logits)
    else:
        run = load_run(given.workdir)
        data = run.config["data"]
        noise = Noise(given.noise, given.noise_seed or 0)
        check_abilities(run.functional, denoise=given.denoise)
        options: dict[str, Any] = {"head": given.head, "noise": noise, "denoise": given.denoise}
        options["choice"] = choice = choice_of(given, data)
        source = partial(posteriors_of, run, data_root=given.data_root, **options)
        root = Path(given.data_root or data["root"])
        sessions = [*run.sessions, *choice.renamed]  # of which training sentences were seen
        title = f"{given.workdir}, best model, step {run.step}, {given.head} head"
        title += ", denoised" * given.denoise
        title += f", with noise of deviation {noise.deviation:g}" * bool(given.noise)
    texts = [list(lines(path)) for path in given.text]
    training = {file.parent.name for file in root.glob("*/data_train.hdf5")}
    if training if sessions is None else training & {*sessions}:
        texts.append(read_transcripts(root, "train", sessions))
    else:
        print(
            f"{root} has no training split of the model's; only sentences of --text count as seen"
        )
    with compile_cache((given.workdir or job.folder) / "compiled"):
        evaluation = job.decode(source, given.split, chain.from_iterable(texts))
    written = job.write(evaluation)
    if given.save_logits is not None:
        trials = [result.trial for result in evaluation.results]
        write_official_logits(given.save_logits, {t.key: t.frames for t in trials})
    print(title)
    print(format_words(evaluation))
    print("\nwritten: " + ", ".join(map(str, written)))


def _job(given: argparse.Namespace) -> WordJob:
    rnnt = given.head == "rnnt"
    if rnnt and given.workdir is None:
        raise ValueError("--head rnnt needs --workdir: logits are those of a CTC head")
    if rnnt and given.save_logits is not None:
        raise ValueError("--save_logits writes the logits of the CTC head; leave out --head rnnt")
    if given.noise < 0:
        raise ValueError(f"--noise = {given.noise:g}: give a deviation of at least 0")
    if given.noise_seed is not None and not given.noise:
        raise ValueError("--noise_seed needs --noise: without it no noise is drawn")
    if given.val_logits is not None and given.workdir is not None:
        raise ValueError("--val_logits needs --logits: of a run, val is read from the data")
    if given.lm_weight is not None and given.lm is None:
        raise ValueError("--lm_weight needs --lm: it is the weight of that n-gram")
    for name in ("noise", "denoise"):
        if getattr(given, name) and given.workdir is None:
            raise ValueError(f"--{name} needs --workdir: it changes the features before the model")
    for name in ("sessions", "session_map", "untrained_sessions"):
        if getattr(given, name) and given.workdir is None:
            raise ValueError(f"--{name} needs --workdir: logits come without a model")
    words = "words" + "_rnnt" * rnnt + "_denoised" * given.denoise
    words += f"_noisy_{given.noise_seed or 0}" * (given.noise > 0)
    folder: Path | None = given.out
    if folder is None and given.workdir is not None:
        folder = given.workdir / words
    if folder is None or (given.workdir is None and given.data_root is None):
        raise ValueError("--logits need --data_root, for the sentences, and --out")
    stated = {field.name: getattr(given, field.name) for field in fields(SearchOptions)}
    options = {name: value for name, value in stated.items() if value is not None}
    tried = {name: tuple(options.pop(name)) for name in Weights._fields if name in options}
    grid = None
    if given.tune:
        # Without an n-gram its weight has no effect; a transducer's search is too slow for more.
        single = {"lm_weight": given.lm is None, "blank_penalty": rnnt}
        grid = Grid(**{name: (1.0,) for name, alone in single.items() if alone} | tried)
    else:
        options |= {name: _only(name, values) for name, values in tried.items()}
    return WordJob(
        Vocabulary(Lexicon.read(given.lexicon), given.lm),
        SearchOptions(**options),
        grid,
        folder,
        given.processes,
    )


def _only(name: str, values: tuple[float, ...]) -> float:
    value, *more = values
    if more:
        raise ValueError(f"--{name} has {len(values)} values; give one, or --tune to try them all")
    return value


def _recorded(given: argparse.Namespace, split: str) -> Posteriors:
    file = given.logits if split == given.split else given.val_logits
    if file is None:
        raise ValueError(f"to tune for {given.split}, give the logits of val too: --val_logits")
    return posteriors_from(read_official_logits(file), split, given.data_root)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.decode",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    either = parser.add_mutually_exclusive_group(required=True)
    either.add_argument("--workdir", type=Path, help="folder of a training run")
    either.add_argument("--logits", type=Path, help="val_metrics.pkl of the split, without a run")

    def add(name: str, what: str, **further: Any) -> None:
        parser.add_argument(f"--{name}", help=what, **further)

    add("head", "head of the run (ctc)", choices=["ctc", "rnnt"], default="ctc")
    add("split", "split to decode (val)", choices=SPLITS, default="val")
    add("lexicon", "file of the words to recognise", type=Path, required=True)
    add("lm", "n-gram, ARPA or KenLM binary (none)", type=Path)
    add("tune", "choose the weights on val (no)", action="store_true")
    add("val_logits", "logits to tune on if the split is not val (none)", type=Path)
    add("text", "texts the n-gram was trained on (none)", type=Path, nargs="+", default=[])
    add("data_root", "folder of session folders (that of the training)", type=Path)
    add("out", "folder to write to (one in the workdir)", type=Path)
    add("denoise", "run the flow bridge on the features first (no)", action="store_true")
    add("noise", "standard deviation of noise added to the features (0)", type=float, default=0.0)
    add("noise_seed", "seed of that noise (0)", type=int)
    add("save_logits", "folder to write val_metrics.pkl and args.yaml to (none)", type=Path)
    add_arguments(parser)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    add("processes", "processes to search with (one for each core)", type=int, default=cores)
    for field in fields(SearchOptions):
        several = field.name in Weights._fields
        what = f"{_HELP[field.name]} ({field.default:g}"
        if several:
            tried = " ".join(f"{value:g}" for value in getattr(Grid(), field.name))
            what += f"; with --tune the values to try: {tried}"
        add(field.name, f"{what})", type=type(field.default), nargs="+" if several else None)
    return parser


if __name__ == "__main__":
    main()
