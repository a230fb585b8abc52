"""Makes and measures the n-grams and lexicons that decoding into words needs.

    python -m experiments.language_model embedded --out lm/english.arpa
    python -m experiments.language_model train --text talk.txt --prune 1e-8 --out lm/my.arpa
    python -m experiments.language_model lexicon --words lm/english.arpa --out lm/english.lexicon
    python -m experiments.language_model phonemes --text talk.txt --lexicon lm/english.lexicon \\
        --out lm/phonemes.arpa
    python -m experiments.language_model report --lm lm/my.arpa --text val.txt --training talk.txt

embedded converts the US-English trigram of 72,547 words in the package pocketsphinx (BSD licence).
train estimates a modified Kneser-Ney model from a text of one sentence a line. lexicon looks up all
pronunciations of the words of a model or a text; those of words in no dictionary are guessed, and
the words named. phonemes estimates an n-gram of phonemes for the transducer's beam search. report
gives the perplexity of sentences and, with --training, how many of them are in the training text.
Models are written as ARPA files.
"""

import argparse
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from modessm_jax.language import kneser_ney, pocketsphinx_lm
from modessm_jax.language.arpa import BackoffModel
from modessm_jax.language.lexicon import Lexicon, build_lexicon
from modessm_jax.language.ngram import NGram
from modessm_jax.language.phoneme_ngram import phonemes_of
from modessm_jax.language.pronounce import guess_pronunciations
from modessm_jax.language.text_files import lines, sentences
from modessm_jax.runtime.files import ARPA, GZIP, KENLM, content
from modessm_jax.text import clean, named, percent, seen_sentences

_SHOWN = 20
# Shorter sentences are everyday phrases, which any text holds.
_LONG = 5


def main(arguments: list[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    try:
        options.run(options)
    except (ValueError, OSError, ImportError) as error:
        raise SystemExit(str(error)) from error


def embedded(options: argparse.Namespace) -> None:
    """Converts the trigram of pocketsphinx."""
    print("reading the trigram of pocketsphinx")
    _write(pocketsphinx_lm.read(pocketsphinx_lm.embedded()), options.out)


def train(options: argparse.Namespace) -> None:
    """Estimates an n-gram of words."""
    _write(kneser_ney.train(sentences(options.text), options.order, options.prune), options.out)


def phonemes(options: argparse.Namespace) -> None:
    """Estimates an n-gram of phonemes."""
    lexicon = Lexicon.read(options.lexicon)
    count = 0

    def counted() -> Iterator[str]:
        nonlocal count
        for line in lines(options.text):
            count += bool(clean(line))
            yield line

    spoken = [sounds for sounds in phonemes_of(counted(), lexicon) if sounds]
    print(f"{len(spoken):,} of {count:,} sentences are of words in {options.lexicon}")
    _write(kneser_ney.train(spoken, options.order, options.prune), options.out)


def lexicon(options: argparse.Namespace) -> None:
    """Looks up pronunciations, or guesses those of words in no dictionary."""
    guess = guess_pronunciations if options.guess else None
    built = build_lexicon(_vocabulary(options.words), options.additions, guess)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    built.write(options.out)
    variants = sum(map(len, built.words.values()))
    print(f"{options.out}: {len(built.words):,} words, {variants:,} pronunciations")
    if built.guessed:
        shown = ", ".join(sorted(built.guessed)[:_SHOWN])
        more = ", ..." if len(built.guessed) > _SHOWN else ""
        print(f"guessed, without a dictionary entry: {len(built.guessed):,} ({shown}{more})")


def report(options: argparse.Namespace) -> None:
    """Prints the perplexity of sentences, and how many of them a training text contains."""
    cleaned = [clean(line) for line in lines(options.text) if clean(line)]
    words = Counter(word for sentence in cleaned for word in sentence.split())
    model = NGram(options.lm)
    unknown = {word: words[word] for word in model.lacking(words)}
    measured = model.perplexity(sentence.split() for sentence in cleaned)
    print(f"{options.lm}: {model.order}-gram")
    print(
        f"{measured.sentences:,} sentences, {measured.words:,} words, {measured.unknown:,} unknown"
    )
    if unknown:
        print(f"unknown: {named(Counter(unknown))}")
    print(f"perplexity {measured.known_words:.2f} without unknown words")
    print(f"perplexity {measured.all_words:.2f} with them")
    if options.training is not None:
        seen = seen_sentences(cleaned, lines(options.training))
        long = [
            known
            for known, sentence in zip(seen, cleaned, strict=True)
            if len(sentence.split()) >= _LONG
        ]
        for name, known in (("all sentences", seen), (f"sentences of {_LONG} words or more", long)):
            share = percent(sum(known) / len(known)) if known else "there are none"
            print(f"in {options.training}: {sum(known):,} of {len(known):,} {name} ({share})")


def _write(model: BackoffModel, out: Path) -> None:
    sizes = ", ".join(f"{size:,} {n}-grams" for n, size in enumerate(model.sizes, 1))
    print(f"writing {sizes}")
    out.parent.mkdir(parents=True, exist_ok=True)
    model.write(out)
    NGram(out)  # a file that KenLM cannot read should fail here, not in a search
    print(f"{out}: {out.stat().st_size / 1e6:.1f} MB")


def _vocabulary(path: Path) -> list[str]:
    if content(path) in (ARPA, GZIP, KENLM):
        return NGram(path).words()
    return list(dict.fromkeys(word for words in sentences(path) for word in words))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.language_model",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    jobs = parser.add_subparsers(required=True, metavar="{embedded,train,lexicon,phonemes,report}")

    def job(run, words: str) -> argparse.ArgumentParser:
        job = jobs.add_parser(run.__name__, help=words, description=words)
        job.set_defaults(run=run)
        return job

    def add_training(job: argparse.ArgumentParser, order: int) -> None:
        job.add_argument("--text", type=Path, required=True, help="text, one sentence a line")
        job.add_argument(
            "--order", type=int, default=order, help=f"of the n-gram, 2 to 6 ({order})"
        )
        job.add_argument(
            "--prune",
            type=float,
            default=0.0,
            help="drop n-grams that change the relative entropy by less; 1e-8 is mild (0)",
        )

    def add_out(job: argparse.ArgumentParser) -> None:
        job.add_argument("--out", type=Path, required=True, help="file to write")

    add_out(job(embedded, "convert the US-English trigram of pocketsphinx"))

    of_words = job(train, "estimate an n-gram of words from a text")
    add_training(of_words, order=3)
    add_out(of_words)

    looked_up = job(lexicon, "look up the pronunciations of a vocabulary")
    looked_up.add_argument(
        "--words", type=Path, required=True, help="an ARPA n-gram, or a text of any words"
    )
    looked_up.add_argument(
        "--additions", type=Path, help="own words: one a line with its ARPAbet phonemes (none)"
    )
    looked_up.add_argument(
        "--guess",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="guess pronunciations of words in no dictionary, or else fail (--guess)",
    )
    add_out(looked_up)

    of_phonemes = job(phonemes, "estimate an n-gram of phonemes from a text and a lexicon")
    of_phonemes.add_argument(
        "--lexicon", type=Path, required=True, help="lexicon of the text's words"
    )
    add_training(of_phonemes, order=4)
    add_out(of_phonemes)

    measured = job(report, "measure perplexity, and count sentences seen in training")
    measured.add_argument("--lm", type=Path, required=True, help="ARPA file or KenLM binary")
    measured.add_argument("--text", type=Path, required=True, help="text, one sentence a line")
    measured.add_argument("--training", type=Path, help="text the model was trained on (none)")
    return parser


if __name__ == "__main__":
    main()
