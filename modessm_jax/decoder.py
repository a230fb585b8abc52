"""A trained decoder from Python: NumPy features in, phonemes, words and their times out."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, overload

import jax
import numpy as np
from jaxtyping import Float

from modessm_jax.language.lexicon import Lexicon
from modessm_jax.language.ngram import NGram
from modessm_jax.recalibration.unlabelled import Options
from modessm_jax.runs.load import Run, load_run
from modessm_jax.runs.sessions import REFUSE, Choice, adapters, check_rule
from modessm_jax.search.options import SearchOptions
from modessm_jax.sequence import Sequence as Padded
from modessm_jax.streaming.decoded import Decoded
from modessm_jax.streaming.features import Features
from modessm_jax.streaming.head import CTC, Head
from modessm_jax.streaming.reading import Frames
from modessm_jax.streaming.recalibration import Recalibration
from modessm_jax.streaming.step import BatchStep
from modessm_jax.streaming.stream import PAUSE, Stream, Streams

# Shapes are few, because each is compiled for: lengths double from about this many bins on, and
# batches have one row or this many.
_SHORTEST, _ROWS = 128, 8


def load(
    run: str | Path,
    *,
    head: str = CTC,
    width: int = 1,
    lexicon: str | Path | None = None,
    lm: str | Path | None = None,
    session_map: Mapping[str, str] | None = None,
    untrained_sessions: str = REFUSE,
    **options: Any,
) -> "Decoder":
    """Loads the best model of a training run.

    Args:
        run: the workdir of the run.
        head: "ctc"; or "rnnt", the transducer of a run that has one.
        width: hypotheses of a beam search for the transducer's phonemes; 1 searches greedily. The
            words have a beam of their own.
        lexicon: file of the words to be recognised, from `python -m experiments.language_model
            lexicon`; without it, phonemes only. Needs `pip install 'modessm_jax[words]'`.
        lm: file of an n-gram, ARPA or KenLM binary, to weigh the words by.
        session_map: names of sessions the model was trained on, by names of others that are to be
            decoded with their adapters.
        untrained_sessions: the adapter of all other sessions: "nearest" in time, or the "mean" of
            all; by default they are refused.
        options: fields of `modessm_jax.search.options.SearchOptions`, such as `beam=100`.

    Raises:
        CheckpointError: the directory holds no trained model, or one that cannot be read.
        ValueError: the lexicon, the n-gram, the session map or an option is unfit, or there is no
            lexicon for them; or the head is unknown, or the model lacks it.
        TypeError: there is no such option.
        ImportError: the packages of the word search are not installed.
    """
    found = load_run(run)
    params = jax.device_put(found.params)
    reader = Head(found.functional, params, head, width)
    if lexicon is not None:
        make_search = reader.word_search(params)
        known = Lexicon.read(Path(lexicon))
        ngram = None if lm is None else NGram(Path(lm))
        if ngram is not None:
            ngram.lacking(known.words)
        reader.words = make_search(known, ngram, SearchOptions(**options))
    elif lm is not None or options:
        raise ValueError("an n-gram and search options need a lexicon: give one, or neither")
    check_rule("untrained_sessions", untrained_sessions)
    choice = Choice(renamed=dict(session_map or {}), untrained=untrained_sessions)
    return Decoder(Path(run), found._replace(params=params), reader, choice)


class Decoder:
    """The best model of a run, ready to decode; made by `modessm_jax.load`.

    Attributes:
        config: of the run.
        sessions: the names of the recording sessions it was trained on.
        channels: features in a bin that it uses: those of `data.channels`, or all.
    """

    def __init__(self, workdir: Path, run: Run, head: Head, choice: Choice):
        self.config, self.sessions, self.channels = run.config, tuple(run.sessions), run.channels
        self._adapters, self._choice = run.adapters, choice
        strange = sorted(set(choice.renamed.values()) - set(self.sessions))
        if strange:
            known = ", ".join(self.sessions)
            raise ValueError(
                f"session_map: {', '.join(strange)} is not one of the model's: {known}"
            )
        self._title = f"{run.config['model']['name']} of {workdir}, step {run.step}"
        self._head, self._run = head, run
        self._features = Features(run.config, run.channels)
        self._steps: dict[int, BatchStep] = {}  # by streams in a batch

        def score(params: Any, values: Any, bins: Any, session: Any) -> Any:
            features = Padded.from_lengths(values, bins)
            outputs = run.functional.apply(params, features, session)
            return head.score(params, head.start(params, bins.shape[0]), outputs)[1]

        self._score = jax.jit(score)

    def __repr__(self) -> str:
        search = self._head.words
        words = "" if search is None else f", {len(search.words):,} words"
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
            features: floats [bins, channels], as in the recordings of the training, in bins of 20
                ms, of all channels that are recorded; or a list of such trials, of any lengths.
                Where the run normalises (`data.normalize`), it does so here, and goes on from
                trial to trial of a session: give them in the order of recording.
            session: the name of the session they were recorded in; of a list also one for each.

        Returns:
            What was decoded; a list if `features` is one.

        Raises:
            ValueError: a session is unknown; a trial has another rank, type or channel count, no
                bins, or values that are not finite; the list is empty. The message says which.
        """
        if not isinstance(features, list | tuple):
            trial = self._check("features", features, session)
            return self._decode_batch(self._normalized([trial]))[0]
        names = [session] * len(features) if isinstance(session, str) else session
        if not features or len(names) != len(features):
            problem = f"{len(features)} trials and {len(names)} sessions"
            raise ValueError(f"{problem}; give at least one trial, and one session for all or each")
        given = enumerate(zip(features, names, strict=True))
        checked = [self._check(f"trial {place} of the list", *trial) for place, trial in given]
        trials = self._normalized(checked)
        found: dict[int, Decoded] = {}
        order = sorted(range(len(trials)), key=lambda place: len(trials[place][0]))
        for start in range(0, len(order), _ROWS):
            places = order[start : start + _ROWS]
            batch = self._decode_batch([trials[place] for place in places])
            found |= zip(places, batch, strict=True)
        return [found[place] for place in range(len(trials))]

    def stream(
        self,
        session: str,
        *,
        before: Any = None,
        pause: float = PAUSE,
        recalibrate: Options | None = None,
    ) -> Stream:
        """Begins a stream: the decoder fed with bins as they are recorded.

        The model's step is compiled now. What `finish` gives is what `decode` gives of all bins.

        Args:
            session: the name of the session that is being recorded.
            before: bins [bins, channels] of the session that were recorded before, such as those of
                the last block, to begin the normalisation with. Only a run that normalises
                (`data.normalize`) needs them.
            pause: seconds of blank or silence, after something was said, that end a sentence.
            recalibrate: how to learn from the sentences, without labels; see `Stream.recalibrate`.
                The decoder itself, and other streams, keep the adapter that they have.

        Raises:
            ValueError: the model needs whole trials, the session is unknown, or `before` or `pause`
                is unfit; or the stream cannot be recalibrated, see `Recalibration`.
        """
        streams = self.streams([session], before=[before], pause=pause)
        if recalibrate is None:
            return Stream(streams)
        entry = self._entry("session", session)
        return Stream(streams, Recalibration(self._run, self._head, entry, recalibrate))

    def streams(
        self,
        sessions: Sequence[str],
        *,
        before: Sequence[Any] | None = None,
        pause: float = PAUSE,
    ) -> Streams:
        """Begins several streams that are stepped as one batch; for each of them as `stream`.

        Args:
            sessions: of each stream.
            before: of each stream, or None; None for none of them.
            pause: of all.

        Raises:
            ValueError: as `stream`.
        """
        rows, run = len(sessions), self._run
        if not rows:
            raise ValueError("streams of no sessions: give one for each stream")
        if rows not in self._steps:
            given = run.functional, self._head, run.params, self.channels, rows
            self._steps[rows] = BatchStep(*given)
        parts = self._steps[rows], self._head, self._features, self._entry
        return Streams(*parts, sessions, before, pause)

    def _check(self, name: str, features: Any, session: Any) -> tuple[np.ndarray, str]:
        """A trial as numbers [bins, channels], of a known session."""
        self._entry(name, session)
        values = self._features.take(features, name, least=1)
        bad = np.flatnonzero(~(np.abs(values) <= np.finfo(np.float32).max).all(axis=0))
        if len(bad):
            problem = f"NaN or infinity in {len(bad)} channels, such as channel {bad[0]}"
            raise ValueError(f"{name}: {problem}; put 0 there, the mean of z-scored features")
        return values, session

    def _normalized(self, trials: list[tuple[np.ndarray, str]]) -> list[tuple[np.ndarray, int]]:
        """The features of trials in the order of recording, and the entry of each one's session."""
        states: dict[str, Any] = {}
        found = []
        for values, session in trials:
            state = states.get(session, self._features.start())
            states[session], features = self._features.normalize(state, values, session)
            found.append((features, self._entry("features", session)))
        return found

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
        length = -(-_SHORTEST // self._run.functional.multiple) * self._run.functional.multiple
        while length < len(batch[-1][0]):
            length *= 2
        values = np.zeros((rows, length, self.channels), np.float32)
        bins, ids = np.zeros((2, rows), np.int32)  # rows that stay empty have no real bins
        for row, (trial, session) in enumerate(batch):
            values[row, : len(trial)], bins[row], ids[row] = trial, len(trial), session
        scored = jax.device_get(self._score(self._run.params, values, bins, ids))
        stride = length // scored.mask.shape[1]  # bins in a frame
        return [
            self._decode_frames(scored.of(row), stride, len(trial))
            for row, (trial, _) in enumerate(batch)
        ]

    def _decode_frames(self, frames: Frames, stride: int, bins: int) -> Decoded:
        reading = self._head.reading(stride)
        reading.feed(frames, bins)
        return reading.finish(bins)
