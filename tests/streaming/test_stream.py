"""A stream gives in pieces what the whole trial gives at once, and says what is new of it."""

from dataclasses import replace
from typing import Any

import jax
import numpy as np
import pytest

from modessm_jax.data.normalization import RunningNormalization
from modessm_jax.decoder import Decoder
from modessm_jax.phonemes import BLANK, CLASSES, SILENCE
from modessm_jax.search.options import SearchOptions
from modessm_jax.streaming.decoded import Decoded, News
from modessm_jax.streaming.features import Features
from modessm_jax.streaming.head import Head, Scored
from modessm_jax.streaming.reading import BestPath, Reading
from modessm_jax.streaming.step import BatchStep
from modessm_jax.streaming.stream import Stream, Streams
from tests.blocks.contract import TOLERANCE, difference
from tests.streaming.tiny import CHANNELS, decoder_of, pieces, run_of, trial
from tests.words.spoken import LEXICON

WORDS: dict[str, Any] = {"lexicon": LEXICON, "lm": None, "options": SearchOptions(beam=20, nbest=1)}
SLOW = [
    ("transformer", "ctc", 1, WORDS),
    ("multiscale", "ctc", 1, WORDS),
    ("conformer", "ctc", 1, {}),
    ("modessm", "ctc", 1, WORDS),
    ("modessm", "rnnt", 1, WORDS),
    ("modessm", "rnnt", 4, WORDS),
]


@pytest.fixture(scope="module")
def gru() -> Decoder:
    return decoder_of(run_of("gru"))


@pytest.fixture(scope="module")
def transducer() -> Decoder:
    return decoder_of(run_of("modessm"), "rnnt", 1, **WORDS)


def in_pieces_as_at_once(decoder: Decoder, sessions: list[str]) -> None:
    """Two sentences, one after the other, of a stream for each session."""
    streams = decoder.streams(sessions)
    for lengths in ((75, 3), (41, 96)):
        trials = [trial(lengths[row], 7 * row + lengths[0]) for row in range(len(sessions))]
        expected = decoder.decode(trials, sessions)
        cut = [list(pieces(x, row)) for row, x in enumerate(trials)]
        news: list[list[News]] = [[] for _ in sessions]
        for at in range(max(map(len, cut))):
            given = [bins[at] if at < len(bins) else None for bins in cut]
            for row, each in enumerate(streams.push(given)):
                news[row].append(each)
        for row, whole in reversed([*enumerate(expected)]):
            news[row].append(streams.flush(row))
            frames = np.concatenate([each.frames for each in news[row]])
            scores = _log_probabilities(decoder, trials, sessions, row)
            assert difference(frames, scores) < TOLERANCE
            decoded = streams.finish(row)
            found = decoded.log_probabilities, whole.log_probabilities
            np.testing.assert_allclose(*found, rtol=TOLERANCE, atol=TOLERANCE)
            same = {"log_probabilities": ()}
            assert replace(decoded, **same) == replace(whole, **same)
            # What was given on the way is how the sentence begins.
            symbols = tuple(phoneme.symbol for each in news[row] for phoneme in each.phonemes)
            words = tuple(word.word for each in news[row] for word in each.words)
            assert symbols == whole.phonemes[: len(symbols)]
            assert words == whole.words[: len(words)]
            streams.reset(row)
        assert any(whole.phonemes for whole in expected)
        assert decoder._head.words is None or any(whole.words for whole in expected)


def _log_probabilities(
    decoder: Decoder, trials: list[np.ndarray], sessions: list[str], row: int
) -> np.ndarray:
    """Of a whole trial, by the model alone, in the program that `decode` has compiled."""
    rows = 1 if len(trials) == 1 else 8
    values, bins = np.zeros((rows, 128, CHANNELS), np.float32), np.zeros(rows, np.int32)
    values[0, : len(trials[row])], bins[0] = trials[row], len(trials[row])
    entries = np.full(rows, decoder.sessions.index(sessions[row]), np.int32)
    found = decoder._score(decoder._run.params, values, bins, entries)
    return np.asarray(found.scores[0])[np.asarray(found.mask[0])]


def test_in_pieces_as_at_once(gru) -> None:
    in_pieces_as_at_once(gru, ["b"])


@pytest.mark.slow
@pytest.mark.parametrize(("name", "head", "width", "words"), SLOW)
def test_every_model_in_pieces_as_at_once(name, head, width, words) -> None:
    in_pieces_as_at_once(decoder_of(run_of(name), head, width, **words), ["a", "b"])


def test_nothing_compiles_once_a_stream_is_made(transducer) -> None:
    streams = transducer.streams(["a", "b"])
    compiled: list[str] = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, *_, **__: compiled.append(event)
    )
    for bins in pieces(trial(60)):
        streams.push([bins, bins])
    streams.finish(0)
    streams.reset(0, "b")
    streams.push([trial(5), trial(7)])
    transducer.streams(["b", "a"]).push([trial(9), None])
    assert not [event for event in compiled if "backend_compile" in event]


def test_a_stream_ends_with_frames_that_lag(gru) -> None:
    stream = gru.stream("a")
    features = trial(40)
    shown = len(stream.push(features).frames)
    late = gru._run.functional.steps.delay
    assert late and shown == 10 - late
    assert stream.finish() == gru.decode(features, "a")


def test_the_next_sentence_begins_anew_and_may_be_of_another_session(gru) -> None:
    stream, features = gru.stream("a"), trial(50)
    stream.push(trial(31, 5))
    stream.reset("b")  # what was pushed before is dropped
    stream.push(features)
    assert stream.finish() == gru.decode(features, "b") != gru.decode(features, "a")
    with pytest.raises(ValueError, match="has ended: begin the next one with reset"):
        stream.push(features)
    with pytest.raises(ValueError, match="has ended"):
        stream.finish()
    stream.reset()
    assert stream.finish() == Decoded((), (), ())
    stream.reset("a")
    with pytest.raises(ValueError, match="session 'c' is not one of the model's"):
        stream.reset("c")
    with pytest.raises(ValueError, match="session 'c'"):
        gru.stream("c")


def test_seconds_and_steps_are_counted(gru) -> None:
    stream = gru.stream("a")
    assert stream.seconds == (0, 0) and stream.steps == 0
    stream.push(trial(11))
    assert stream.steps == 2 and stream.seconds.model > 0
    before = stream.seconds
    stream.push(trial(0))
    assert stream.steps == 2 and stream.seconds.model == before.model


def test_values_that_are_not_finite_become_the_mean_and_are_counted(gru) -> None:
    features = trial(40)
    features[3:20, 1] = np.nan
    stream = gru.stream("a")
    stream.push(features)
    assert stream.repaired == 17
    assert stream.finish() == gru.decode(np.nan_to_num(features), "a")


@pytest.mark.parametrize(
    ("bins", "message"),
    [
        (np.zeros((3, CHANNELS + 1), np.float32), "5 channels, but the model was trained on 4"),
        (np.zeros(CHANNELS, np.float32), r"bins: float32 of shape \(4,\), not floats"),
        (np.zeros((3, CHANNELS), int), "bins: int64"),
    ],
)
def test_bins_that_do_not_fit_are_named(gru, bins, message) -> None:
    with pytest.raises(ValueError, match=message):
        gru.stream("a").push(bins)


def test_each_stream_has_its_bins(gru) -> None:
    with pytest.raises(ValueError, match="1 entries for 2 streams"):
        gru.streams(["a", "b"]).push([trial(3)])
    with pytest.raises(ValueError, match="streams of no sessions"):
        gru.streams([])
    with pytest.raises(ValueError, match="before has 1 entries for 2 sessions"):
        gru.streams(["a", "b"], before=[None])
    with pytest.raises(ValueError, match="pause = 0"):
        gru.stream("a", pause=0.0)


class Echo(BatchStep):
    """In place of a model: the first feature of a bin is the class of its frame."""

    bins, late, stride, params = 1, 0, 1, None

    def __init__(self):
        self.given: list[np.ndarray] = []

    def start(self) -> None:
        return None

    def __call__(self, params, state, bins, real, active, session):
        self.given.append(bins[0])
        scores = np.log(np.eye(CLASSES, dtype=np.float32)[bins[:, :, 0].astype(int)] + 1e-3)
        return state, Scored(np.ones((1, 1), bool), scores, None, None)

    def restart(self, state, chosen) -> None:
        return None


class EchoHead(Head):
    def __init__(self):
        pass

    def reading(self, stride: int) -> Reading:
        return Reading(BestPath(), None, stride)


def echo(pause: float = 0.1, before: Any = None, **data: Any) -> tuple[Stream, Echo]:
    """A stream of which the frames are known."""
    step, features = Echo(), Features({"data": data}, 2)
    streams = Streams(step, EchoHead(), features, lambda *_: 0, ["a"], [before], pause)
    return Stream(streams), step


def bins_of(*classes: int) -> np.ndarray:
    return np.stack([np.array(classes), np.zeros(len(classes))], axis=1).astype(np.float32)


def test_a_sentence_ends_when_nothing_was_said_for_the_pause() -> None:
    stream, _ = echo()
    assert not stream.push(bins_of(*[BLANK, SILENCE] * 10)).endpoint  # nothing was said yet
    assert not stream.push(bins_of(7, 0, 0, SILENCE, 0)).endpoint
    assert stream.push(bins_of(0)).endpoint  # 5 bins are 0.1 s
    assert stream.push(bins_of()).endpoint
    assert not stream.push(bins_of(0, 8)).endpoint
    stream.reset()
    assert not stream.push(bins_of(*[0] * 20)).endpoint


@pytest.mark.parametrize("cut", [1, 7, 100])
def test_what_is_normalised_goes_on_from_sentence_to_sentence(cut: int) -> None:
    """By the rule of the recordings, from the block before on; anew in another session."""
    rule = RunningNormalization(0.5)
    features = np.abs(np.random.default_rng(0).normal(size=(90, 2))).astype(np.float32) * 20
    before, *sentences = np.split(features, [30, 50])
    stream, step = echo(before=before, normalize="running", normalize_window=0.5)
    state, _ = rule(rule.start(2), before, "")
    for sentence in sentences:
        state, expected = rule(state, sentence, "")
        step.given.clear()
        for start in range(0, len(sentence), cut):
            stream.push(sentence[start : start + cut])
        np.testing.assert_array_equal(np.concatenate(step.given), expected)
        stream.reset("a")
    step.given.clear()
    stream.reset("b")
    stream.push(before)
    np.testing.assert_array_equal(np.concatenate(step.given), rule(rule.start(2), before, "")[1])
