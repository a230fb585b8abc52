"""Searching the trials of a split for words, shared out to processes."""

import multiprocessing
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, NamedTuple, cast

import jax
import numpy as np

from modessm_jax.evaluation.posteriors import RunTransducer
from modessm_jax.language.lexicon import Lexicon
from modessm_jax.language.ngram import NGram
from modessm_jax.runtime.progress import Clock, Progress
from modessm_jax.words.ctc_search import SearchOptions, WordHypothesis, WordSearch
from modessm_jax.words.transducer_search import TransducerWordSearch

_TRIALS_AT_ONCE = 4
_SECONDS_BETWEEN_LINES = 10.0


class Found(NamedTuple):
    """The hypotheses of one trial, best first, and the seconds of a core that they took."""

    hypotheses: list[WordHypothesis]
    seconds: float


class Task(NamedTuple):
    """A trial, by its place, and how to search it."""

    trial: int
    options: SearchOptions


class WordDecoder:
    """Searches with one lexicon and n-gram under any options.

    Every process builds its own tree of the lexicon; the n-gram of a KenLM binary is shared by all
    through the operating system. Close it, or use it in a `with` statement, to end the processes.
    """

    def __init__(
        self,
        lexicon: Lexicon,
        lm: Path | None,
        frames: Sequence[np.ndarray],
        transducer: RunTransducer | None = None,
        *,
        processes: int = 1,
        stream: Any = None,
    ):
        """Starts the processes.

        Args:
            lexicon: the words to be recognised.
            lm: file of the n-gram, ARPA or KenLM binary; None for none.
            frames: of each trial, float32 [frames, width]: log-probabilities of the classes, or
                what the encoder of the transducer gives.
            transducer: the rest of it; None searches log-probabilities.
            processes: 1 searches in this process.
            stream: where progress is shown; standard output by default.
        """
        self._frames = [len(values) for values in frames]
        self._stream = sys.stdout if stream is None else stream
        self._processes = processes
        state = (lexicon, lm, tuple(frames), transducer)
        self._pool: ProcessPoolExecutor | None = None
        if processes == 1:
            self._here = _Searcher(*state)
        else:
            # A fork would copy JAX's threads' locks, and may hang.
            self._pool = ProcessPoolExecutor(
                processes, multiprocessing.get_context("spawn"), _begin, state
            )

    def __enter__(self) -> "WordDecoder":
        return self

    def __exit__(self, *error: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def __call__(self, tasks: Sequence[Task]) -> list[Found]:
        """Searches, and shows how far it is, sentences and frames a second, and the time left.

        Returns:
            What was found, in the order of the tasks.

        Raises:
            ValueError: see `WordSearch`.
            MemoryError: the system ended a process.
        """
        clock = Clock()
        progress = Progress(len(tasks), clock, stream=self._stream, noun="sentence")
        found: list[Found] = []
        frames, shown = 0, time.monotonic()
        results = self._results(tasks)
        for number, task in enumerate(tasks, 1):
            with clock.account("step"):
                found.append(next(results))
            frames += self._frames[task.trial]
            figures = f"{frames / max(clock.stepping, 1e-9):,.0f} frames/s"
            progress.tick(number, figures)
            if number == len(tasks) or time.monotonic() - shown > _SECONDS_BETWEEN_LINES:
                shown = time.monotonic()
                progress.show(number, figures, number / max(clock.stepping, 1e-9))
        return found

    def _results(self, tasks: Sequence[Task]) -> Iterator[Found]:
        if self._pool is None:
            yield from map(self._here, tasks)
            return
        try:
            yield from self._pool.map(_search, tasks, chunksize=_TRIALS_AT_ONCE)
        except BrokenProcessPool as error:
            raise MemoryError(
                f"a search process was ended, most likely for want of memory: each of the "
                f"{self._processes} holds the lexicon and, unless it is a KenLM binary, the "
                "n-gram; take fewer --processes"
            ) from error


class _Searcher:
    """What one process holds."""

    def __init__(
        self,
        lexicon: Lexicon,
        lm: Path | None,
        frames: Sequence[np.ndarray],
        transducer: RunTransducer | None,
    ):
        self._lexicon = lexicon
        self._lm = None if lm is None else NGram(lm)
        self._frames = frames
        self._transducer = transducer
        self._search: WordSearch | TransducerWordSearch | None = None

    def _begin(self, options: SearchOptions) -> WordSearch | TransducerWordSearch:
        if self._transducer is None:
            return WordSearch(self._lexicon, self._lm, options)
        functions = self._transducer.functions()
        search = TransducerWordSearch(functions, self._lexicon, self._lm, options)
        # What is compiled on the way is no trial's time.
        search(self._frames[0][:1])
        return search

    def __call__(self, task: Task) -> Found:
        if self._search is None:
            self._search = self._begin(task.options)
        elif self._search.options != task.options:
            self._search = self._search.with_options(task.options)
        # On a busy machine, not the time the others took; JAX computes in threads of its own.
        start = time.process_time()
        hypotheses = self._search(self._frames[task.trial])
        return Found(hypotheses, time.process_time() - start)


_PROCESS: dict[str, _Searcher] = {}


def _begin(*state: object) -> None:
    # An accelerator would not hold all processes, and is no faster at a step of one hypothesis.
    jax.config.update("jax_platforms", "cpu")
    _PROCESS["searcher"] = _Searcher(*cast(Any, state))


def _search(task: Task) -> Found:
    return _PROCESS["searcher"](task)
