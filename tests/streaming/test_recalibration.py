"""A stream that learns from its sentences does what `Recalibrator` does of the same trials."""

import copy
from dataclasses import replace
from typing import Any

import jax
import numpy as np
import pytest

from modessm_jax.data.normalization import RunningNormalization
from modessm_jax.decoder import Decoder
from modessm_jax.recalibration.adapter import adapter_of, with_session
from modessm_jax.recalibration.unlabelled import Options
from modessm_jax.search.options import SearchOptions
from modessm_jax.streaming.decoded import Decoded
from modessm_jax.streaming.head import Head
from modessm_jax.streaming.recalibration import LONGEST, Learned, Recalibration
from modessm_jax.streaming.stream import Stream
from tests.streaming.tiny import CHANNELS, SESSIONS, decoder_of, pieces, run_of, trial
from tests.words.spoken import LEXICON

RUNNING = {"normalize": "running", "normalize_window": 0.5}
OPTIONS = Options("pseudo_labels", rate=3e-2, window=2)
SEARCH = SearchOptions(beam=20, nbest=1, word_score=4.0)  # or words would be too unlikely
WORDS: dict[str, Any] = {"lexicon": LEXICON, "lm": None, "options": SEARCH}
SENTENCES = [3 * trial(bins, bins) for bins in (75, 96, 41, 60, 88)]


@pytest.fixture(scope="module")
def decoder(shared_programs) -> Decoder:
    return decoder_of(run_of("gru", **RUNNING), **WORDS)


def said(stream: Stream, bins: np.ndarray) -> Decoded:
    """The next sentence of a stream."""
    stream.reset()
    for piece in pieces(bins):
        stream.push(piece)
    return stream.finish()


def decoded_with(decoder: Decoder, adapter: Any) -> Decoded:
    """The last sentence, by a run that has this adapter for its session."""
    made = copy.copy(decoder)
    made._run = with_session(decoder._run, "b", adapter)
    return made.decode(SENTENCES, "b")[-1]


def same(one: Decoded, other: Decoded) -> bool:
    """Whether two are equal but for rounding."""
    close = np.allclose(one.log_probabilities, other.log_probabilities, rtol=2e-5)
    return close and replace(one, log_probabilities=()) == replace(other, log_probabilities=())


def test_the_adapter_is_that_of_the_same_trials_offline(decoder) -> None:
    stream, found, learned, adapters = decoder.stream("b", recalibrate=OPTIONS), None, [], []
    recalibration = stream.recalibration
    assert recalibration is not None
    for bins in SENTENCES:
        adapters.append(recalibration.adapter)
        found = said(stream, bins)
        learned.append(stream.recalibrate())
    # What the sentences before taught is what the last was decoded with, and in this stream alone.
    assert found is not None and found.words and same(found, decoded_with(decoder, adapters[-1]))
    assert not same(found, decoder.decode(SENTENCES, "b")[-1])

    (final, checks), offline = recalibration.result(), recalibration._recalibrator
    offline.begin(adapters[0])
    rule = RunningNormalization(0.5)
    past = rule.start(CHANNELS)
    for bins, adapter, outcome in zip(SENTENCES, adapters, learned, strict=True):
        jax.tree.map(np.testing.assert_array_equal, adapter, offline.adapter)
        past, features = rule(past, bins, "")
        update = offline(features)
        assert outcome == Learned(update.loss, update.taken_back, update.unused, outcome.seconds)
    jax.tree.map(np.testing.assert_array_equal, final, offline.result())
    assert checks == f"{offline.taken_back} of 3 checks took steps back"
    assert all(one.loss for one in learned)


def test_what_is_not_learned_from(decoder) -> None:
    stream = decoder.stream("b", recalibrate=OPTIONS)
    lost = SENTENCES[0].copy()
    lost[5:8, 1] = np.nan
    stream._streams.keeps = 90
    for bins, why in (
        (SENTENCES[0][:0], "it has no bins"),
        (lost, "3 of its values are missing"),
        (SENTENCES[1], f"it is longer than {LONGEST:g} s"),
        (SENTENCES[0][:3], "nothing was found in it"),  # of fewer bins than a frame
    ):
        said(stream, bins)
        learned = stream.recalibrate()
        assert learned is not None and (learned.loss, learned.unused) == (None, why)
    assert stream.recalibration is not None
    before = adapter_of(decoder._run.params, SESSIONS["b"])
    jax.tree.map(np.testing.assert_array_equal, stream.recalibration.adapter, before)
    said(stream, SENTENCES[0])
    learned = stream.recalibrate()
    assert learned is not None and learned.loss is not None and not learned.unused


def test_a_stream_that_is_not_recalibrated_keeps_nothing(decoder) -> None:
    stream = decoder.stream("b")
    said(stream, SENTENCES[0])
    assert stream.recalibrate() is None
    assert stream._streams.features(0) is None


def test_misuse_is_named(decoder) -> None:
    stream = decoder.stream("b", recalibrate=OPTIONS)
    stream.push(SENTENCES[0])
    with pytest.raises(ValueError, match="has not ended: call finish"):
        stream.recalibrate()
    with pytest.raises(ValueError, match="has one session: begin another stream"):
        stream.reset("a")
    run = decoder._run
    head = Head(run.functional, run.params, "ctc", 1)
    head.words, head.kind = object(), "rnnt"
    with pytest.raises(ValueError, match="labels sentences by the CTC head"):
        Recalibration(run, head, 0, OPTIONS)
    head.words = None
    with pytest.raises(ValueError, match="the mean of all adapters is of none"):
        Recalibration(run, head, 2, Options("statistics"))
    without = run._replace(config={**run.config, "model": {"session": "none"}})
    with pytest.raises(ValueError, match="no adapters of sessions"):
        Recalibration(without, head, 0, OPTIONS)


def test_it_is_said_in_words() -> None:
    assert str(Learned(0.81234, False, "", 0.64)) == "recalibrated: loss 0.812, 640 ms"
    assert str(Learned(None, True, "", 0.01)) == (
        "recalibrated: 10 ms; the last steps were taken back"
    )
    assert str(Learned(None, False, "it has no bins", 0.0)) == "nothing was learned: it has no bins"
