"""Word errors, speed, memory and stability of the word search on synthetic posteriors.

    python -m experiments.language_model embedded --out lm/english.arpa
    python -m experiments.language_model lexicon --words lm/english.arpa --out lm/english.lexicon
    python -m benchmarks.word_search --lm lm/english.arpa --lexicon lm/english.lexicon \\
        --recorded DIR --out benchmarks/results/word_search

DIR holds lists of recorded trials in JSON: t15_val_baseline.json, with the `sentence` of each, and
t12_val_phonemes.json, also with its `phonemes` and those of a decoder, `gru`.

The sentences are real (1,426 of T15's validation set), the emissions are synthetic: see
`benchmarks.posteriors`. Weights are tuned on sentences of T12 that are not among those of T15. The
peer is the engine itself with the defaults of `torchaudio`. Seconds are of CPU time, which other
programs on the machine do not change. Prints the tables; writes OUT.md and OUT.png. Takes some
eight minutes of CPU time.
"""

import argparse
import itertools
import json
import math
import resource
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from flashlight.lib.text import decoder as flashlight
from flashlight.lib.text.decoder.kenlm import KenLM
from flashlight.lib.text.dictionary import Dictionary

from benchmarks.posteriors import calibrate, greedy, log_posteriors, read_confusions
from benchmarks.word_search_report import Findings, Measured, draw, report
from modessm_jax.language.lexicon import Lexicon
from modessm_jax.language.ngram import NGram
from modessm_jax.language.pronunciations import Pronunciations
from modessm_jax.phonemes import BLANK, CLASSES, SILENCE, sentence_ids
from modessm_jax.search.ctc import WordSearch
from modessm_jax.search.options import SearchOptions, WordHypothesis
from modessm_jax.text import (
    Edits,
    normalize,
    percent,
    phoneme_edits,
    total,
    word_edits,
)

T15, T12 = "t15_val_baseline.json", "t12_val_phonemes.json"
RATE = 0.10
BEAM = 100
BEAMS = (50, 100, 250, 500, 1000, 1500)
THRESHOLDS = (8.0, 10.0, 12.0, 15.0, 25.0, 50.0)
WIDE = 500  # the beam with which the thresholds are tried
LM_WEIGHTS = (0.0, 0.4, 0.6, 0.8, 1.0, 1.4)
RATES = (0.05, 0.10, 0.15, 0.20, 0.25)
PENALTIES = (1.0, 20.0, 90.0, 400.0)
WORD_SCORES = (0.0, 1.0)
# Words of T15 in no dictionary; they are not in the lexicon either.
UNLISTED = {
    "shallows": ["SH", "AE", "L", "OW", "Z"],
    "snark": ["S", "N", "AA", "R", "K"],
    "zales": ["Z", "EY", "L", "Z"],
}


@dataclass(frozen=True)
class Trial:
    """A sentence and its frames."""

    sentence: str
    frames: np.ndarray


def sentences_of(file: Path) -> list[str]:
    """The reference sentences of a file of recorded trials."""
    trials = json.loads(file.read_text(encoding="utf-8"))
    return [normalize(trial["sentence"]) for trial in trials]


def phonemes_of(sentence: str, pronunciations: Pronunciations) -> np.ndarray:
    """A sentence's phonemes, silence after every word."""
    spelt = (UNLISTED.get(word) or pronunciations(word) for word in sentence.split())
    return sentence_ids([word for word in spelt if word])


class Emissions:
    """Trials at a phoneme error rate; the same sentence has the same hard frames at every rate."""

    def __init__(self, recorded: Path) -> None:
        self._confusions = read_confusions(recorded)
        self._pronunciations = Pronunciations()

    def __call__(self, sentences: list[str], rate: float) -> tuple[list[Trial], float]:
        """The trials, and their greedy phoneme error rate; the scale is set on some of them."""
        ids = [phonemes_of(sentence, self._pronunciations) for sentence in sentences]
        scale = calibrate(ids[:: max(1, len(ids) // 60)], self._confusions, rate)
        frames = [log_posteriors(each, self._confusions, scale, i) for i, each in enumerate(ids)]
        edits = total(phoneme_edits(each, greedy(x)) for each, x in zip(ids, frames, strict=True))
        return [Trial(*pair) for pair in zip(sentences, frames, strict=True)], edits.rate


def measure(search: WordSearch, trials: list[Trial], compared: int = 0) -> Measured:
    """Streams every trial, and searches the first of them whole for comparison."""
    edits, frame_seconds, finish_seconds = [], [], []
    changed = stable = equal = 0
    for number, trial in enumerate(trials):
        stream, shown, before = search.stream(), (), changed
        for frame in trial.frames:
            start = time.process_time()
            now = stream.feed(frame[None])
            frame_seconds.append(time.process_time() - start)
            changed += taken_back(shown, now)
            shown = now
        start = time.process_time()
        found = stream.finish()
        finish_seconds.append(time.process_time() - start)
        changed += taken_back(shown, found[0].words)
        equal += number < compared and same(found, search(trial.frames))
        stable += changed == before
        edits.append(word_edits(trial.sentence, " ".join(found[0].words)))
    seconds = np.array(frame_seconds), np.array(finish_seconds)
    return Measured(edits, *seconds, equal, changed, stable)


def same(a: list[WordHypothesis], b: list[WordHypothesis]) -> bool:
    """Equal sentences and scores; times may differ where paths are exactly as likely.

    They often are here, for improbable classes all have the same least probability.
    """
    blank = [[replace(each, times=()) for each in found] for found in (a, b)]
    return blank[0] == blank[1]


def taken_back(before: tuple[str, ...], after: tuple[str, ...]) -> int:
    """How many of the words shown before are no longer where they were."""
    return sum(pair[0] != pair[1] for pair in itertools.zip_longest(before, after[: len(before)]))


def scored(trials: list[Trial], decoded: list[str]) -> list[Edits]:
    """Edits of each sentence."""
    return [word_edits(trial.sentence, each) for trial, each in zip(trials, decoded, strict=True)]


def word_errors(search: WordSearch, trials: list[Trial]) -> float:
    """The error rate of the best sentences."""
    decoded = [" ".join(search(trial.frames)[0].words) for trial in trials]
    return total(scored(trials, decoded)).rate


def tune(search: WordSearch, trials: list[Trial]) -> SearchOptions:
    """The blank's penalty, then the n-gram's weight, then the word score of fewest errors."""
    best = SearchOptions(beam=search.options.beam)
    grids = {"blank_penalty": PENALTIES, "lm_weight": LM_WEIGHTS[1:], "word_score": WORD_SCORES}
    for name, values in grids.items():
        tried = [replace(best, **{name: value}) for value in values]
        best = min(tried, key=lambda options: word_errors(search.with_options(options), trials))
    return best


class Plain:
    """The engine as `torchaudio.models.decoder.ctc_decoder` sets it up, by default with its values.

    Words beyond six of one sound get lost, and words end in silence or not at all.
    """

    def __init__(self, lexicon: Lexicon, lm: Path):
        words = Dictionary()
        for word in lexicon.words:
            words.add_entry(word)
        model = KenLM(str(lm), words)
        tree = flashlight.Trie(CLASSES, SILENCE)
        start = model.start(False)
        for index, variants in enumerate(lexicon.words.values()):
            _, score = model.score(start, index)
            for variant in variants:
                tree.insert([*variant, SILENCE], index, score)
        tree.smear(flashlight.SmearingMode.MAX)
        self._words = tuple(lexicon.words)
        self._parts = (tree, model)

    def __call__(
        self, trials: list[np.ndarray], beam: int = 50, lm_weight: float = 2, word_score: float = 0
    ) -> tuple[list[str], float]:
        """The sentences, and seconds a frame; `lm_weight` is of decimal logarithms."""
        options = flashlight.LexiconDecoderOptions(
            beam_size=beam,
            beam_size_token=CLASSES,
            beam_threshold=50,
            lm_weight=lm_weight,
            word_score=word_score,
            unk_score=-math.inf,
            sil_score=0,
            log_add=False,
            criterion_type=flashlight.CriterionType.CTC,
        )
        decoder = flashlight.LexiconDecoder(options, *self._parts, SILENCE, BLANK, -1, [], False)
        decoded = []
        start = time.process_time()
        for frames in trials:
            found = decoder.decode(frames.ctypes.data, *frames.shape)
            words = found[0].words if found else []
            decoded.append(" ".join(self._words[index] for index in words if index >= 0))
        return decoded, (time.process_time() - start) / sum(map(len, trials))


def peak_gigabytes() -> float:
    """The most memory this process has had resident."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def find(given: argparse.Namespace) -> Findings:
    """Measures everything, in order."""
    emissions = Emissions(given.recorded)
    evaluated = sentences_of(given.recorded / T15)
    evaluated = evaluated[:: len(evaluated) // given.sentences][: given.sentences]
    others = sorted(set(sentences_of(given.recorded / T12)) - set(evaluated))
    trials, rate = emissions(evaluated, RATE)
    few = trials[:: len(trials) // given.subset][: given.subset]
    tuning, _ = emissions(others[:: len(others) // given.subset][: given.subset], RATE)

    lexicon, lm = Lexicon.read(given.lexicon), NGram(given.lm)
    start = time.process_time()
    search = WordSearch(lexicon, lm, SearchOptions(beam=BEAM))
    loading, loaded = time.process_time() - start, peak_gigabytes()
    search = search.with_options(tune(search, tuning))
    options = search.options
    print(f"tuned: {options}", flush=True)
    whole = measure(search, trials, given.compared)
    print(f"all sentences: {percent(whole.rate)}", flush=True)
    beams = {b: measure(search.with_options(replace(options, beam=b)), few) for b in BEAMS}
    print(f"beams: {[percent(each.rate) for each in beams.values()]}", flush=True)
    wide = replace(options, beam=WIDE)
    thresholds = {
        nats: measure(search.with_options(replace(wide, beam_threshold=nats)), few)
        for nats in THRESHOLDS
    }
    print(f"thresholds: {[percent(each.rate) for each in thresholds.values()]}", flush=True)
    peak = peak_gigabytes()
    plain = Plain(lexicon, given.lm)
    peers = {}
    decoded, seconds = plain([trial.frames for trial in trials])
    peers["flashlight with torchaudio's defaults, beam 50"] = scored(trials, decoded), seconds
    penalised = [search.emissions(trial.frames)[:, :CLASSES].copy() for trial in trials]
    decoded, seconds = plain(
        penalised, options.beam, options.lm_weight * math.log(10), options.word_score
    )
    peers[f"flashlight with our weights, beam {options.beam}"] = scored(trials, decoded), seconds
    print(f"peers: {[percent(total(edits).rate) for edits, _ in peers.values()]}", flush=True)
    weights = {
        weight: word_errors(search.with_options(replace(options, lm_weight=weight)), few)
        for weight in LM_WEIGHTS
    }
    rates = {}
    for wanted in RATES:
        noisy, found = emissions([trial.sentence for trial in few], wanted)
        decoded, _ = plain([trial.frames for trial in noisy])
        rates[found] = (word_errors(search, noisy), total(scored(noisy, decoded)).rate)
    return Findings(
        rate=rate,
        missing=sum(word not in lexicon.words for each in evaluated for word in each.split()),
        vocabulary=len(search.words),
        order=lm.order,
        tuned_on=len(tuning),
        subset=len(few),
        options=options,
        loading=loading,
        loaded=loaded,
        peak=peak,
        compared=given.compared,
        whole=whole,
        peers=peers,
        beams=beams,
        wide=WIDE,
        thresholds=thresholds,
        weights=weights,
        rates=rates,
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.word_search", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--lm", type=Path, required=True, help="n-gram, ARPA or KenLM binary")
    parser.add_argument("--lexicon", type=Path, required=True, help="file of the words")
    parser.add_argument("--recorded", type=Path, required=True, help="folder of recorded trials")
    parser.add_argument("--out", type=Path, help="path of the report without suffix (none)")
    parser.add_argument("--sentences", type=int, default=1426, help="sentences to score (1426)")
    parser.add_argument("--subset", type=int, default=40, help="sentences of the sweeps (40)")
    parser.add_argument(
        "--compared", type=int, default=500, help="streams compared with the whole trial (500)"
    )
    given = parser.parse_args()
    missing = [name for name in (T15, T12) if not (given.recorded / name).is_file()]
    if missing:
        raise SystemExit(f"{given.recorded} lacks {' and '.join(missing)}; give another --recorded")
    found = find(given)
    text = report(found)
    if given.out is not None:
        given.out.with_suffix(".md").write_text(text, encoding="utf-8")
        draw(given.out.with_suffix(".png"), found)
    print(text)


if __name__ == "__main__":
    main()
