"""From posteriors to words: the whole job of `experiments.decode`."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from modessm_jax.evaluation.posteriors import Posteriors
from modessm_jax.language.contamination import seen_sentences
from modessm_jax.language.lexicon import Lexicon
from modessm_jax.language.ngram import NGram
from modessm_jax.runtime.metric_writer import write_json
from modessm_jax.text import percent
from modessm_jax.words.ctc_search import SearchOptions
from modessm_jax.words.decoder import Found, Task, WordDecoder
from modessm_jax.words.greedy import GreedyWords
from modessm_jax.words.nbest import write_nbest
from modessm_jax.words.report import write_word_report
from modessm_jax.words.results import WordEvaluation, WordResult
from modessm_jax.words.tuning import Grid, Tuning, Weights, cached, origin, tune

Source = Callable[[str], Posteriors]


class Vocabulary(NamedTuple):
    """What may be said: a lexicon, and the file of an n-gram if there is one."""

    lexicon: Lexicon
    lm: Path | None

    def describe(self) -> str:
        """The sizes of both, and how many words the n-gram does not know."""
        words = self.lexicon.words
        said = f"lexicon of {len(words):,} words"
        if self.lm is None:
            return f"{said}, no n-gram"
        ngram = NGram(self.lm)
        unknown = sum(word not in ngram for word in words)
        return f"{said}, {ngram.order}-gram {self.lm.name}; {unknown:,} of the words unknown to it"


@dataclass(frozen=True)
class WordJob:
    """How to find words.

    With a grid, val is searched with weights that are chosen on its other half, any other split
    with the weights chosen on the whole of val.

    Attributes:
        vocabulary: what may be said.
        options: the width of the search, and its weights where they are not tuned.
        grid: weights to choose from; None takes those of `options`.
        folder: where results, and what tuning found, are written.
        processes: to search with.
    """

    vocabulary: Vocabulary
    options: SearchOptions
    grid: Grid | None
    folder: Path
    processes: int = 1

    def decode(self, source: Source, split: str, training: Iterable[str]) -> WordEvaluation:
        """Searches a split for words.

        Args:
            source: gives the posteriors of "val", where weights are tuned, and of `split`.
            split: "train", "val" or "test".
            training: sentences that the model or the n-gram was trained on.

        Raises:
            DataError: the data are missing or unfit.
            ValueError: the n-gram or an option is unfit, or weights cannot be tuned.
        """
        # What is wrong with the n-gram should be said before a model is run, and not by a pool.
        described = self.vocabulary.describe()
        greedy = GreedyWords(self.vocabulary.lexicon.words)
        posteriors = source(split)
        weights, notes = self._weights(source, posteriors)
        found = self._search(posteriors, weights)
        seen = seen_sentences([trial.sentence or "" for trial in posteriors.trials], training)
        results = [
            WordResult(trial, each, " ".join(greedy(trial.phonemes)), known)
            for trial, each, known in zip(posteriors.trials, found, seen, strict=True)
        ]
        words = frozenset(self.vocabulary.lexicon.words)
        return WordEvaluation(split, results, words, (described, *notes))

    def write(self, evaluation: WordEvaluation) -> list[Path]:
        """Writes `<split>.jsonl` (n-best lists), `<split>.json` (figures), `<split>.png`.

        Returns:
            The files; a split without sentences gets no picture.
        """
        nbest, figures, picture = (
            self.folder / f"{evaluation.split}{end}" for end in (".jsonl", ".json", ".png")
        )
        self.folder.mkdir(parents=True, exist_ok=True)
        write_nbest(nbest, (result.utterance for result in evaluation.results))
        write_json(figures, evaluation.to_dict())
        if not evaluation.labelled:
            return [nbest, figures]
        write_word_report(picture, evaluation)
        return [nbest, figures, picture]

    def _weights(self, source: Source, posteriors: Posteriors) -> tuple[list[Weights], list[str]]:
        """The weights for every trial, and how they were chosen, in words."""
        trials = len(posteriors.trials)
        if self.grid is None:
            given = Weights.of(self.options)
            return [given] * trials, [f"weights as given: {given}"]
        val = posteriors if posteriors.split == "val" else source("val")
        tuning, picture = self._tuning(val, self.grid)
        notes = [f"tuning drawn to {picture}"]
        if tuning.edges:
            notes.append(
                f"best at the end of the values tried: {', '.join(tuning.edges)}; try more"
            )
        if posteriors.split != "val":
            return [tuning.best] * trials, [f"weights chosen on val: {tuning.best}", *notes]
        halves = "; ".join(sorted(map(str, set(tuning.crossed))))
        return tuning.crossed, [
            f"each half of val searched with the weights chosen on the other: {halves}",
            f"chosen on all of val: {tuning.best}, where the WER flatters: "
            f"{percent(tuning.best_rate)}",
            "for rescore --tune_on and combine --calibrate_on decode val with these alone, without "
            "--tune",
            *notes,
        ]

    def _tuning(self, val: Posteriors, grid: Grid) -> tuple[Tuning, Path]:
        """The tuning, measured or remembered, and its picture."""

        def measure() -> Tuning:
            print(f"tuning: {len(grid.points())} choices of weights, {len(val.trials)} sentences")
            with self._decoder(val) as decoder:
                return tune(decoder, val, self.options, grid)

        facts = origin(val, self.vocabulary.lexicon, self.vocabulary.lm, self.options, grid)
        return cached(self.folder, facts, measure)

    def _search(self, posteriors: Posteriors, weights: list[Weights]) -> list[Found]:
        each = (own.put_into(self.options) for own in weights)
        with self._decoder(posteriors) as decoder:
            return decoder([Task(trial, options) for trial, options in enumerate(each)])

    def _decoder(self, posteriors: Posteriors) -> WordDecoder:
        frames = [trial.frames for trial in posteriors.trials]
        return WordDecoder(
            *self.vocabulary, frames, posteriors.transducer, processes=self.processes
        )
