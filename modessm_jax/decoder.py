"""A trained decoder from Python: NumPy features in, phonemes, words and their times out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, overload

import jax
import numpy as np
from jaxtyping import Float

from modessm_jax.data.selection import parse_channels, take_channels
from modessm_jax.evaluation.posteriors import best_path, log_probabilities
from modessm_jax.evaluation.results import BIN_SECONDS
from modessm_jax.phonemes import symbols
from modessm_jax.runs.load import Run, load_run
from modessm_jax.runs.sessions import REFUSE, Choice, adapters, check_rule
from modessm_jax.sequence import Sequence as Padded

# Shapes are few, because each is compiled for: lengths double from about this many bins on, and
# batches have one row or this many.
_SHORTEST, _ROWS = 128, 8

Times = tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Decoded:
    """What was decoded in one trial.

    Attributes:
        phonemes: greedily decoded by the CTC head (also of a model with a transducer): ARPAbet
            symbols, and " | " for the silence after a word.
        times: start and end of each phoneme in seconds from the first bin, those of its frames on
            the most likely CTC path; a frame is as many bins of 20 ms as the encoder's stride.
        log_probabilities: of each phoneme, the mean over its frames, in nats.
        words: of the best sentence; empty without a lexicon.
        word_times: start and end of each word in seconds, silence left out.
    """

    phonemes: tuple[str, ...]
    times: Times
    log_probabilities: tuple[float, ...]
    words: tuple[str, ...] = ()
    word_times: Times = ()


def load(
    run: str | Path,
    *,
    lexicon: str | Path | None = None,
    lm: str | Path | None = None,
    session_map: Mapping[str, str] | None = None,
    untrained_sessions: str = REFUSE,
    **options: Any,
) -> "Decoder":
    """Loads the best model of a training run.

    Args:
        run: the workdir of the run.
        lexicon: file of the words to be recognised, from `python -m experiments.language_model
            lexicon`; without it, phonemes only. Needs `pip install 'modessm_jax[words]'`.
        lm: file of an n-gram, ARPA or KenLM binary, to weigh the words by.
        session_map: names of sessions the model was trained on, by names of others that are to be
            decoded with their adapters.
        untrained_sessions: the adapter of all other sessions: "nearest" in time, or the "mean" of
            all; by default they are refused.
        options: fields of `modessm_jax.words.search.SearchOptions`, such as `beam=100`.

    Raises:
        CheckpointError: the directory holds no trained model, or one that cannot be read.
        ValueError: the lexicon, the n-gram, the session map or an option is unfit, or there is no
            lexicon for them.
        TypeError: there is no such option.
        ImportError: the packages of the word search are not installed.
    """
    search = None
    if lexicon is not None:
        # Imported here because the packages of the search are optional.
        from modessm_jax.language.lexicon import Lexicon
        from modessm_jax.language.ngram import NGram
        from modessm_jax.words.ctc_search import WordSearch
        from modessm_jax.words.search import SearchOptions

        known = Lexicon.read(Path(lexicon))
        ngram = None if lm is None else NGram(Path(lm))
        if ngram is not None:
            ngram.lacking(known.words)
        search = WordSearch(known, ngram, SearchOptions(**options))
    elif lm is not None or options:
        raise ValueError("an n-gram and search options need a lexicon: give one, or neither")
    check_rule("untrained_sessions", untrained_sessions)
    choice = Choice(renamed=dict(session_map or {}), untrained=untrained_sessions)
    return Decoder(Path(run), load_run(run), search, choice)


class Decoder:
    """The best model of a run, ready to decode; made by `modessm_jax.load`.

    Attributes:
        config: of the run.
        sessions: the names of the recording sessions it was trained on.
        channels: features in a bin that it uses: those of `data.channels`, or all.
    """

    def __init__(self, workdir: Path, run: Run, search: Any, choice: Choice):
        self.config, self.sessions, self.channels = run.config, tuple(run.sessions), run.channels
        self._adapters, self._choice = run.adapters, choice
        strange = sorted(set(choice.renamed.values()) - set(self.sessions))
        if strange:
            known = ", ".join(self.sessions)
            raise ValueError(
                f"session_map: {', '.join(strange)} is not one of the model's: {known}"
            )
        self._title = f"{run.config['model']['name']} of {workdir}, step {run.step}"
        self._search = search
        self._multiple = run.functional.multiple
        self._chosen = parse_channels(run.config["data"].get("channels", ""))
        self._params = jax.device_put(run.params)

        def score(params: Any, values: Any, bins: Any, session: Any) -> Padded:
            features = Padded.from_lengths(values, bins)
            return log_probabilities(run.functional.apply(params, features, session))

        self._score = jax.jit(score)

    def __repr__(self) -> str:
        words = "" if self._search is None else f", {len(self._search.words):,} words"
        known = f"{self.channels} channels, {len(self.sessions)} sessions{words}"
        return f"<Decoder: {self._title}; {known}>"

    @overload
    def decode(self, features: Float[np.ndarray, "bins channels"], session: str) -> Decoded: ...

    @overload
    def decode(
        self, features: Sequence[np.ndarray], session: str | Sequence[str]
    ) -> list[Decoded]: ...

    def decode(self, features: Any, session: str | Sequence[str]) -> Decoded | list[Decoded]:
        """Decodes one trial or several, on JAX's default device.

        Trials are padded to a few lengths; the first call with one of them compiles.

        Args:
            features: floats [bins, channels], z-scored as in training, in bins of 20 ms, of all
                channels that are recorded; or a list of such trials, of any lengths.
            session: the name of the session they were recorded in; of a list also one for each.

        Returns:
            What was decoded; a list if `features` is one.

        Raises:
            ValueError: a session is unknown; a trial has another rank, type or channel count, no
                bins, or values that are not finite; the list is empty. The message says which.
        """
        if not isinstance(features, list | tuple):
            return self._decode_batch([self._check("features", features, session)])[0]
        names = [session] * len(features) if isinstance(session, str) else session
        if not features or len(names) != len(features):
            problem = f"{len(features)} trials and {len(names)} sessions"
            raise ValueError(f"{problem}; give at least one trial, and one session for all or each")
        trials = [
            self._check(f"trial {place} of the list", *trial)
            for place, trial in enumerate(zip(features, names, strict=True))
        ]
        found: dict[int, Decoded] = {}
        order = sorted(range(len(trials)), key=lambda place: len(trials[place][0]))
        for start in range(0, len(order), _ROWS):
            places = order[start : start + _ROWS]
            batch = self._decode_batch([trials[place] for place in places])
            found |= zip(places, batch, strict=True)
        return [found[place] for place in range(len(trials))]

    def _check(self, name: str, features: Any, session: Any) -> tuple[np.ndarray, int]:
        """A trial as float32 [bins, channels], and the id of its session."""
        entry = self._entry(name, session)
        values = np.asarray(features)
        if values.ndim != 2 or values.dtype.kind != "f" or not len(values):
            problem = f"{values.dtype} of shape {values.shape}, not floats [bins, channels]"
            raise ValueError(f"{name}: {problem}; give one bin or more, several trials as a list")
        values = take_channels(values, self._chosen, name)
        if values.shape[1] != self.channels:
            problem = f"{values.shape[1]} channels, but the model was trained on {self.channels}"
            raise ValueError(f"{name}: {problem}; give the same features as in training")
        bad = np.flatnonzero(~(np.abs(values) <= np.finfo(np.float32).max).all(axis=0))
        if len(bad):
            problem = f"NaN or infinity in {len(bad)} channels, such as channel {bad[0]}"
            raise ValueError(f"{name}: {problem}; put 0 there, the mean of z-scored features")
        return values.astype(np.float32, copy=False), entry

    def _entry(self, name: str, session: Any) -> int:
        """The entry of a session in the session layers."""
        if self._adapters is None:
            return 0
        found, lacking = adapters(
            [session],
            self._adapters,
            renamed=self._choice.renamed,
            untrained=self._choice.untrained,
        )
        if lacking:
            known = ", ".join(self.sessions)
            raise ValueError(
                f"{name}: session {session!r} is not one of the model's: {known}. Load it with "
                "session_map={new: old} or untrained_sessions='nearest' to decode others"
            )
        return found[session]

    def _decode_batch(self, batch: list[tuple[np.ndarray, int]]) -> list[Decoded]:
        """Decodes a few trials, the longest last."""
        rows = 1 if len(batch) == 1 else _ROWS
        length = -(-_SHORTEST // self._multiple) * self._multiple
        while length < len(batch[-1][0]):
            length *= 2
        values = np.zeros((rows, length, self.channels), np.float32)
        bins, ids = np.zeros((2, rows), np.int32)  # rows that stay empty have no real bins
        for row, (trial, session) in enumerate(batch):
            values[row, : len(trial)], bins[row], ids[row] = trial, len(trial), session
        scores = jax.device_get(self._score(self._params, values, bins, ids))
        stride = length // scores.mask.shape[1]  # bins in a frame
        return [
            self._decode_frames(scores.values[row, : scores.mask[row].sum()], stride, len(trial))
            for row, (trial, _) in enumerate(batch)
        ]

    def _decode_frames(self, frames: np.ndarray, stride: int, bins: int) -> Decoded:
        def seconds(spans: Any) -> Times:
            edges = np.minimum(np.reshape(spans, (-1, 2)) * stride, bins) * BIN_SECONDS
            return tuple((start, end) for start, end in edges.round(6).tolist())

        phonemes, spans = best_path(frames)
        spoken = zip(phonemes, spans, strict=True)
        scores = tuple(float(frames[start:end, k].mean()) for k, (start, end) in spoken)
        decoded = Decoded(tuple(symbols(phonemes.tolist())), seconds(spans), scores)
        if self._search is None:
            return decoded
        best = self._search(frames)[0]
        return replace(decoded, words=best.words, word_times=seconds(best.times))
