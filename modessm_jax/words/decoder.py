"""Searching the trials of a split for words, in one process or several."""

import multiprocessing
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import NamedTuple

import jax

from modessm_jax.evaluation.posteriors import Posteriors
from modessm_jax.language.lexicon import Lexicon
from modessm_jax.language.ngram import NGram
from modessm_jax.runtime.progress import Clock, Progress
from modessm_jax.search.ctc import WordSearch
from modessm_jax.search.options import SearchOptions, WordHypothesis
from modessm_jax.search.transducer import TransducerWordSearch

_TRIALS_AT_ONCE = 4
_SECONDS_BETWEEN_LINES = 10.0


class Vocabulary(NamedTuple):
    """The words to recognise: a lexicon, and the file of an n-gram if there is one."""

    lexicon: Lexicon
    lm: Path | None  # ARPA or KenLM binary

    def describe(self) -> str:
        """The sizes of both, and how many words the n-gram lacks.

        Raises:
            ValueError: the n-gram cannot be read, or lacks nearly all words.
        """
        words = self.lexicon.words
        size = f"lexicon of {len(words):,} words"
        if self.lm is None:
            return f"{size}, no n-gram"
        ngram = NGram(self.lm)
        unknown = len(ngram.lacking(words))
        return f"{size}, {ngram.order}-gram {self.lm.name}; {unknown:,} of the words unknown to it"


class Task(NamedTuple):
    """The index of a trial, and the options to search it with."""

    trial: int
    options: SearchOptions


class Found(NamedTuple):
    """The hypotheses of one trial, best first, and the CPU seconds that they took."""

    hypotheses: list[WordHypothesis]
    seconds: float


def search_trials(
    vocabulary: Vocabulary, posteriors: Posteriors, tasks: Sequence[Task], processes: int = 1
) -> list[Found]:
    """Searches trials, and shows the progress: sentences and frames a second, and the time left.

    Args:
        vocabulary: the words to recognise. Every process builds its own tree of the lexicon; the
            operating system shares a KenLM binary between them.
        posteriors: of a CTC head or a transducer.
        tasks: trials of it, each with its options; equal options in a row are fastest.
        processes: 1 searches in this process.

    Returns:
        The results in the order of the tasks.

    Raises:
        ValueError: see `WordSearch`.
        MemoryError: the system ended a process.
    """
    state = vocabulary, posteriors
    frames = [len(posteriors.trials[task.trial].frames) for task in tasks]
    if processes == 1:
        return _with_progress(map(_Searcher(*state), tasks), frames)
    # A fork would copy the locks of JAX's threads, and may hang.
    spawn = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(processes, spawn, _begin, state)
    try:
        return _with_progress(pool.map(_search, tasks, chunksize=_TRIALS_AT_ONCE), frames)
    except BrokenProcessPool as error:
        raise MemoryError(
            f"a search process was ended, most likely for want of memory: each of the {processes} "
            "holds the lexicon and, unless it is a KenLM binary, the n-gram; take fewer --processes"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _with_progress(results: Iterable[Found], frames: Sequence[int]) -> list[Found]:
    clock = Clock()
    progress = Progress(len(frames), clock, noun="sentence")
    found: list[Found] = []
    waiting, shown = iter(results), time.monotonic()
    searched = 0
    for number, size in enumerate(frames, 1):
        with clock.account("step"):
            found.append(next(waiting))
        searched += size
        figures = f"{searched / max(clock.stepping, 1e-9):,.0f} frames/s"
        progress.tick(number, figures)
        if number == len(frames) or time.monotonic() - shown > _SECONDS_BETWEEN_LINES:
            shown = time.monotonic()
            progress.show(number, figures, number / max(clock.stepping, 1e-9))
    return found


class _Searcher:
    """The search of one process."""

    def __init__(self, vocabulary: Vocabulary, posteriors: Posteriors):
        self._lexicon, lm = vocabulary
        self._lm = None if lm is None else NGram(lm)
        self._posteriors = posteriors
        self._search: WordSearch | TransducerWordSearch | None = None

    def _begin(self, options: SearchOptions) -> WordSearch | TransducerWordSearch:
        transducer = self._posteriors.transducer
        if transducer is None:
            return WordSearch(self._lexicon, self._lm, options)
        search = TransducerWordSearch(transducer.functions(), self._lexicon, self._lm, options)
        # Compiles, so that no trial's time includes it.
        search(self._posteriors.trials[0].frames[:1])
        return search

    def __call__(self, task: Task) -> Found:
        if self._search is None:
            self._search = self._begin(task.options)
        elif self._search.options != task.options:
            self._search = self._search.with_options(task.options)
        # CPU time, which other programs on the machine do not change.
        start = time.process_time()
        hypotheses = self._search(self._posteriors.trials[task.trial].frames)
        return Found(hypotheses, time.process_time() - start)


_PROCESS: dict[str, _Searcher] = {}


def _begin(vocabulary: Vocabulary, posteriors: Posteriors) -> None:
    # An accelerator would not hold all processes, and is no faster at a step of one hypothesis.
    jax.config.update("jax_platforms", "cpu")
    _PROCESS["searcher"] = _Searcher(vocabulary, posteriors)


def _search(task: Task) -> Found:
    return _PROCESS["searcher"](task)
