"""A live decoder publishes what a stream says, and saves a sentence before anybody is shown it."""

import base64
import json
import time

import numpy as np
import pytest

from modessm_jax.data.normalization import RunningNormalization
from modessm_jax.live.live import Live
from modessm_jax.live.packets import Packet, SentenceEnd, Unreadable
from modessm_jax.live.sources import in_background
from tests.live.scripted import CHANNELS, STRIDE, ScriptedStream, bins_of, expected


class Run:
    """A live decoder, with all it publishes, and what was in the file at that time."""

    def __init__(self, sentences, **options):
        self.stream, self.published, self.path = ScriptedStream(), [], sentences.path
        self.live = Live(self.stream, CHANNELS, sentences, self.publish, session="a", **options)

    def publish(self, message) -> None:
        self.published.append(message)
        if message["type"] == "sentence":
            last = json.loads(self.path.read_text().splitlines()[-1])
            assert {"type": "sentence", **last} == json.loads(json.dumps(message))

    def of(self, kind) -> list:
        return [message for message in self.published if message["type"] == kind]


@pytest.fixture
def run(sentences):
    return Run(sentences)


def packets(numbers, at_once: int = 3) -> list[Packet]:
    places = [*numbers]
    pieces = [places[k : k + at_once] for k in range(0, len(places), at_once)]
    return [Packet(piece[0], bins_of(piece), time.monotonic()) for piece in pieces]


def test_news_make_up_the_sentence(run):
    run.live.run([*packets(range(100)), SentenceEnd("what was said"), *packets(range(7, 60))])
    first, second = run.of("sentence")
    assert first["text"].split() == first["words"] == list(expected(100).words)
    assert (first["seconds"], first["reference"], first["session"]) == (2.0, "what was said", "a")
    assert second["reference"] is None and second["seconds"] == 1.06  # ended with the source
    assert first["counts"]["used"] == 100 and second["counts"]["used"] == 53
    news = run.of("news")[:35]
    assert [word[0] for one in news for word in one["words"]] == first["words"]
    assert [len(one["words"]) for one in news[-2:]] == [0, 1]  # the last when the sentence ends
    assert [one[0] for message in news for one in message["phonemes"]] == first["phonemes"]
    assert news[-1]["seconds"] == 2.0 and news[-2]["tentative"] and not news[-1]["tentative"]
    frames = [base64.b64decode(one["frames"]) for one in news]
    before = np.cumsum([0, *map(len, frames)])[:-1] // 41
    assert [one["first_frame"] for one in news] == before.tolist()
    assert len(b"".join(frames)) == 100 // STRIDE * 41
    assert frames[1][:5] == bytes([3, 3, 3, 128, 3])
    shown = np.frombuffer(base64.b64decode(news[0]["bins"]), np.uint8).reshape(-1, CHANNELS)
    _, scores = RunningNormalization(30.0)(np.zeros((3, CHANNELS)), bins_of(range(3)), "")
    np.testing.assert_allclose((shown - 128.0) / 32, scores, atol=1 / 60)
    json.dumps(run.published, allow_nan=False)


def test_a_trial_without_bins_is_no_sentence(run):
    run.live.run([SentenceEnd(), SentenceEnd()])
    assert run.published == []


@pytest.mark.parametrize("endpoints", [False, True])
def test_an_endpoint_ends_a_sentence_if_it_is_to(sentences, endpoints):
    run = Run(sentences, endpoints=endpoints)
    for number, event in enumerate(packets(range(40), 1)):
        run.live.take(event)
        if number == 20:
            run.live.take(Packet(21, np.full((1, CHANNELS), 9.0), time.monotonic()))
    run.live.end_sentence()
    assert [len(bins) for bins in run.stream.sentences] == ([22, 19] if endpoints else [40])


def test_a_source_that_counts_anew_ends_the_sentence(run):
    run.live.run([*packets(range(500, 540), 1), *packets(range(30), 1)])
    first, second = run.stream.sentences
    np.testing.assert_array_equal(first, bins_of(range(500, 540)))
    np.testing.assert_array_equal(second, bins_of(range(1, 30)))
    counts = [sentence["counts"] for sentence in run.of("sentence")]
    assert [(one["used"], one["strayed"], one["jumps"]) for one in counts] == [
        (40, 1, 1),
        (29, 0, 0),
    ]


def test_faults_are_counted_and_shown(run):
    sent = packets(range(10), 1)
    sent[4].bins[0, 2] = np.nan
    run.live.run([*sent[:6], Unreadable("noise"), *sent[8:], sent[7], sent[9]])
    counts = run.of("news")[-1]["counts"]
    kinds = {name: count for name, count in counts.items() if count}
    assert kinds == {
        **{"used": 8, "lost": 2, "late": 1, "doubled": 1, "unreadable": 1, "missing_values": 1}
    }
    assert [one["silent"] for one in run.of("news")][4:6] == [[2], []]
    assert run.of("sentence")[0]["counts"] == counts


def test_latency_counts_from_the_arrival(run):
    for event in packets(range(27), 1):
        run.live.take(Packet(event.number, event.bins, time.monotonic() - 0.5))
    figures = run.of("news")[-1]["figures"]
    assert 0.5 < figures["p50"] < 0.7 and figures["missed"] == 25


def test_what_was_learned_follows_its_sentence(run):
    run.stream.learns = 0.0
    run.live.run([*packets(range(40)), SentenceEnd(), *packets(range(30)), SentenceEnd()])
    assert [one["type"] for one in run.published if one["type"] != "news"] == [
        *("sentence", "learned") * 2
    ]
    first, second = run.of("learned")
    assert first["text"] == "recalibrated: loss 0.500, 0 ms"
    assert "taken back" in second["text"] and second["taken_back"]
    lines = [json.loads(line) for line in run.path.read_text().splitlines()]
    assert [line.get("learned_from") for line in lines] == [None, 1, None, 2]
    assert lines[1] | {"type": "learned", "text": first["text"]} == first


def test_bins_that_come_while_it_learns_wait_and_are_counted(run):
    """They are late, which counts as missed deadlines, and none of them is lost."""
    run.stream.learns = 0.3

    def rig():
        yield from packets(range(40))
        yield SentenceEnd()
        yield from packets(range(40, 240), 1)

    run.live.run(in_background(rig()))
    assert [len(bins) for bins in run.stream.sentences] == [40, 200]
    counts = run.of("sentence")[1]["counts"]
    assert counts["used"] == 200 and counts["lost"] == counts["late"] == 0
    assert run.live.meter.figures().missed > 0


def test_phonemes_alone_are_the_text_where_there_are_no_words(run):
    run.live.run(packets(range(17)))
    assert run.of("sentence")[0]["text"] == "AH AH"
