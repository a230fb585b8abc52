"""From posteriors to words: the whole job of `experiments.decode`."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from modessm_jax.evaluation.posteriors import Posteriors
from modessm_jax.runtime.files import write_json
from modessm_jax.search.options import SearchOptions
from modessm_jax.text import percent, seen_sentences
from modessm_jax.words.decoder import Task, Vocabulary, search_trials
from modessm_jax.words.greedy import GreedyWords
from modessm_jax.words.nbest import write_nbest
from modessm_jax.words.report import write_word_report
from modessm_jax.words.results import WordEvaluation, WordResult
from modessm_jax.words.tuning import Grid, Weights, tune

Source = Callable[[str], Posteriors]


@dataclass(frozen=True)
class WordJob:
    """How to decode a split into words.

    With a grid, each half of val is searched with the weights chosen on the other half, and any
    other split with the weights chosen on the whole of val.

    Attributes:
        vocabulary: the words to recognise.
        options: the width of the search, and its weights where they are not tuned.
        grid: weights to choose from; None takes those of `options`.
        folder: where results and tunings are written.
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
            source: gives the posteriors of `split`, and of "val" if weights are tuned.
            split: "train", "val" or "test".
            training: sentences that the model or the n-gram was trained on.

        Raises:
            DataError: the data are missing or unfit.
            ValueError: the n-gram or an option is unfit, or weights cannot be tuned.
        """
        # Reads the n-gram, so that its errors are raised before the model runs, and not in a pool.
        described = self.vocabulary.describe()
        greedy = GreedyWords(self.vocabulary.lexicon)
        posteriors = source(split)
        weights, notes = self._weights(source, posteriors)
        tasks = [Task(trial, own.put_into(self.options)) for trial, own in enumerate(weights)]
        found = search_trials(self.vocabulary, posteriors, tasks, self.processes)
        seen = seen_sentences([trial.sentence or "" for trial in posteriors.trials], training)
        results = [
            WordResult(trial, of_trial, " ".join(greedy(trial.phonemes)), known)
            for trial, of_trial, known in zip(posteriors.trials, found, seen, strict=True)
        ]
        return WordEvaluation(split, results, self.vocabulary.lexicon.words, (described, *notes))

    def write(self, evaluation: WordEvaluation) -> list[Path]:
        """Writes `<split>.jsonl` (n-best lists), `<split>.json` (figures), `<split>.png`.

        Returns:
            The files; a split without sentences gets no picture.
        """
        nbest, figures, picture = (
            self.folder / f"{evaluation.split}{end}" for end in (".jsonl", ".json", ".png")
        )
        write_nbest(nbest, (result.utterance for result in evaluation.results))
        write_json(figures, evaluation.to_dict())
        if not evaluation.labelled:
            return [nbest, figures]
        write_word_report(picture, evaluation)
        return [nbest, figures, picture]

    def _weights(self, source: Source, posteriors: Posteriors) -> tuple[list[Weights], list[str]]:
        """The weights for every trial, and notes on how they were chosen."""
        trials = len(posteriors.trials)
        if self.grid is None:
            given = Weights.of(self.options)
            return [given] * trials, [f"weights as given: {given}"]
        val = posteriors if posteriors.split == "val" else source("val")
        tuning, picture = tune(
            self.vocabulary, val, self.options, self.grid, self.folder, self.processes
        )
        notes = [f"tuning drawn to {picture}"]
        if tuning.edges:
            notes.append(
                f"best at the end of the values tried: {', '.join(tuning.edges)}; try more"
            )
        if posteriors.split != "val":
            return [tuning.best] * trials, [f"weights chosen on val: {tuning.best}", *notes]
        halves = "; ".join(sorted(map(str, set(tuning.crossed))))
        weights = dict(zip(val.sentences, tuning.crossed, strict=True))
        return [weights.get(index, tuning.best) for index in range(trials)], [
            f"each half of val searched with the weights chosen on the other: {halves}",
            f"chosen on all of val: {tuning.best}, where the WER is too optimistic: "
            f"{percent(tuning.best_rate)}",
            "for rescore --tune_on and combine --calibrate_on decode val with these alone, without "
            "--tune",
            *notes,
        ]
