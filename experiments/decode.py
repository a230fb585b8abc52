"""Decodes a split into words, and reports word error rates.

    python -m experiments.decode --workdir RUN --split val --lexicon LEXICON --lm LM.arpa --tune
    python -m experiments.decode --workdir RUN --head rnnt --beam 50 --lexicon LEXICON ...
    python -m experiments.decode --logits val_metrics.pkl --data_root DATA --out OUT ...

What is searched are the phoneme probabilities of a training run's best model, or with --head rnnt
its transducer; or else logits of the official Brain-to-Text '25 pipeline: val_metrics.pkl, beside
which is args.yaml. --save_logits writes those two files. A transducer is asked anew for every
hypothesis, so its search takes many times as long: take a narrower --beam.

LM is an n-gram, ARPA or KenLM binary; without it every sentence of the lexicon is as likely as any
other. --tune chooses n-gram weight, word score and blank penalty on val, whichever split is
decoded: val itself is cut in two halves, each decoded with the weights chosen on the other. What
tuning found is kept in OUT, with a picture. Without --tune the weights are those given here. A
transducer leaves words out at little cost where the n-gram makes them dear: try a higher
--word_score; its blank penalty helps too, and is tuned only if values are given.

--denoise lets the flow bridge of a modessm mend the features first.

--noise lets the model hear a noisy copy of the data, another one with each --noise_seed:
`experiments.combine` makes one sentence of what it hears in several.

Written to OUT (in RUN words/, words_rnnt/, words_denoised/, words_noisy_<noise_seed>/, ...): n-best
lists as JSON lines (SPLIT.jsonl; session, block_num, trial_num and candidates with their scores in
nats), figures (SPLIT.json) and a picture (SPLIT.png). A split without sentences gets predictions
only. Sentences of the training split, and of the files given with --text, count as seen: error
rates stand for seen and unseen ones apart.
"""

import argparse
import os
from dataclasses import fields
from functools import partial
from itertools import chain
from pathlib import Path

from modessm_jax.data.recordings import SPLITS, read_transcripts
from modessm_jax.evaluation.official_logits import read_official_logits, write_official_logits
from modessm_jax.evaluation.posteriors import (
    Noise,
    Posteriors,
    encodings_of,
    posteriors_from,
    posteriors_of,
)
from modessm_jax.evaluation.scoring import check_abilities
from modessm_jax.language.lexicon import Lexicon
from modessm_jax.runs.load import load_run
from modessm_jax.runtime.compile_cache import compiled_programs

try:
    from modessm_jax.words.ctc_search import SearchOptions
    from modessm_jax.words.job import Vocabulary, WordJob
    from modessm_jax.words.report import format_words
    from modessm_jax.words.tuning import Grid, Weights
except ImportError as error:
    raise SystemExit(str(error)) from error

_HELP = {
    "beam": "hypotheses kept after each frame",
    "beam_threshold": "nats behind the best that a hypothesis is dropped at",
    "lm_weight": "factor of the n-gram's log-probability",
    "word_score": "nats added for each word",
    "acoustic_scale": "factor of the frames' log-probabilities",
    "blank_penalty": "divides the blank's probability",
    "nbest": "hypotheses written for each trial",
}


def main(arguments: list[str] | None = None) -> None:
    given = _parser().parse_args(arguments)
    try:
        decode(given)
    except (ValueError, OSError, MemoryError, ImportError) as error:
        raise SystemExit(str(error)) from error


def decode(given: argparse.Namespace) -> None:
    """Does what the command line asks for.

    Raises:
        ValueError: something given is missing or unfit; the message says what.
    """
    job = _job(given)
    if given.workdir is None:
        source, root, sessions = partial(_recorded, given), given.data_root, None
        title = str(given.logits)
    else:
        run = load_run(given.workdir)
        data = run.config["data"]
        of_head = {"ctc": posteriors_of, "rnnt": encodings_of}[given.head]
        noise = Noise(given.noise, given.noise_seed or 0)
        check_abilities(run.functional, denoise=given.denoise)
        further = {"denoise": True} if given.denoise else {}
        source = partial(of_head, run, data_root=given.data_root, noise=noise, **further)
        root = Path(given.data_root or data["root"])
        sessions = data["sessions"]
        heard = ", denoised" * given.denoise + (f", {noise}" if given.noise else "")
        title = f"{given.workdir}, best model, step {run.step}, {given.head} head{heard}"
    texts = [path.read_text(encoding="utf-8").splitlines() for path in given.text]
    if any(root.glob("*/data_train.hdf5")):
        texts.append(read_transcripts(root, "train", sessions))
    else:
        print(f"{root} has no training split; its sentences cannot count as seen")
    with compiled_programs((given.workdir or job.folder) / "compiled"):
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
        raise ValueError("--head rnnt needs --workdir: logits hold what a CTC head says")
    if rnnt and given.save_logits is not None:
        raise ValueError("--save_logits are those of the CTC head; leave --head rnnt away")
    if given.noise < 0:
        raise ValueError(f"--noise = {given.noise:g}: a deviation cannot be negative")
    if given.noise_seed is not None and not given.noise:
        raise ValueError("--noise_seed needs --noise: without it there is nothing to draw")
    if given.val_logits is not None and given.workdir is not None:
        raise ValueError("--val_logits belong to --logits: a run is asked for val itself")
    if given.lm_weight is not None and given.lm is None:
        raise ValueError("--lm_weight needs --lm: without an n-gram it weighs nothing")
    if given.noise and given.workdir is None:
        raise ValueError("--noise needs --workdir: logits are of what the model has heard")
    if given.denoise and given.workdir is None:
        raise ValueError("--denoise needs --workdir: logits are of what the model has heard")
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
        # Without an n-gram its weight weighs nothing; a transducer's search is slow to try more.
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
    either.add_argument("--workdir", type=Path, help="of a training run")
    either.add_argument("--logits", type=Path, help="of the split, in place of a run")
    parser.add_argument("--head", choices=["ctc", "rnnt"], default="ctc", help="of the run (ctc)")
    parser.add_argument("--val_logits", type=Path, help="to tune on, where the split is not val")
    parser.add_argument("--split", choices=SPLITS, default="val", help="which trials (val)")
    parser.add_argument("--lexicon", type=Path, required=True, help="the words to be recognised")
    parser.add_argument("--lm", type=Path, help="n-gram, ARPA or KenLM binary (none)")
    parser.add_argument("--tune", action="store_true", help="choose the weights on val")
    parser.add_argument("--text", type=Path, nargs="+", default=[], help="what the n-gram has seen")
    parser.add_argument("--data_root", type=Path, help="where the data are, if they have moved")
    parser.add_argument("--out", type=Path, help="folder to write to (in the workdir)")
    parser.add_argument(
        "--denoise", action="store_true", help="let the flow bridge mend the features"
    )
    parser.add_argument(
        "--noise", type=float, default=0.0, help="deviation of noise to add to the features (0)"
    )
    parser.add_argument("--noise_seed", type=int, help="of that noise (0)")
    parser.add_argument("--save_logits", type=Path, help="folder for val_metrics.pkl, args.yaml")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    parser.add_argument("--processes", type=int, default=cores, help="of the search (every core)")
    for field in fields(SearchOptions):
        several = field.name in Weights._fields
        remark = "; with --tune the values to try" if several else ""
        parser.add_argument(
            f"--{field.name}",
            type=type(field.default),
            nargs="+" if several else None,
            help=f"{_HELP[field.name]} ({field.default:g}{remark})",
        )
    return parser


if __name__ == "__main__":
    main()
