"""Frames read in pieces give what the whole gives."""

import numpy as np
import pytest

from modessm_jax.decoding.transducer import Emissions
from modessm_jax.evaluation.posteriors import best_path
from modessm_jax.phonemes import BLANK, CLASSES, SILENCE
from modessm_jax.search.ctc import WordSearch
from modessm_jax.search.options import SearchOptions
from modessm_jax.streaming.decoded import Decoded, Phoneme, Word
from modessm_jax.streaming.reading import BestPath, Frames, GreedyLabels, Reading, join
from tests.words.spoken import LEXICON, log_probabilities


def saying(path: list[int]) -> Frames:
    """One class a frame, each with a probability of its own."""
    chance = np.linspace(0.5, 0.9, len(path))[:, None]
    rest = (1 - chance) / (CLASSES - 1)
    return Frames(np.log(np.where(np.eye(CLASSES)[path] > 0, chance, rest)).astype(np.float32))


def cut(frames: Frames, *places: int) -> list[Frames]:
    scores = np.split(frames.scores, places)
    return [Frames(part) for part in scores]


@pytest.mark.parametrize("seed", range(20))
def test_the_best_path_in_pieces(seed: int) -> None:
    random = np.random.default_rng(seed)
    path = random.choice([BLANK, 3, 4], size=random.integers(1, 40), p=[0.5, 0.3, 0.2]).tolist()
    frames = saying(path)
    found = BestPath()
    new = [span for part in frames.scores for span in found.feed(Frames(part[None]))]
    spans = found.finish()
    assert new == spans[: len(new)] and len(spans) - len(new) <= 1
    ids, edges = best_path(frames.scores)
    assert [span.phoneme for span in spans] == ids.tolist()
    assert [[span.start, span.end] for span in spans] == edges.tolist()
    for span in spans:
        mean = frames.scores[span.start : span.end, span.phoneme].mean()
        assert span.score == pytest.approx(mean, abs=1e-6)


def test_a_phoneme_is_given_when_it_has_ended() -> None:
    reading = Reading(BestPath(), None, stride=4)
    pieces = cut(saying([0, 3, 3, 0, SILENCE]), 2, 3, 4)
    found = [
        reading.feed(part, bins).phonemes
        for part, bins in zip(pieces, (8, 12, 16, 20), strict=True)
    ]
    assert [len(each) for each in found] == [0, 0, 1, 0]
    assert found[2][0][:3] == ("AH", 0.08, 0.24)
    assert isinstance(found[2][0], Phoneme)
    decoded = reading.finish(18)
    assert decoded.phonemes == ("AH", " | ")
    assert decoded.times == ((0.08, 0.24), (0.32, 0.36))  # it has no bins after the last


def test_the_labels_of_a_transducer_are_in_the_frames_that_emit_them() -> None:
    ids = np.array([[0, 0], [5, 7], [0, 0], [9, 0]], np.int32)
    scores = np.where(ids > 0, -0.5, 0).astype(np.float32)
    given = [
        Frames(np.zeros((2, CLASSES), np.float32), None, Emissions(ids[at], scores[at]))
        for at in (slice(0, 2), slice(2, 4))
    ]
    reading = GreedyLabels()
    assert [span[:3] for span in reading.feed(given[0])] == [(5, 1, 2), (7, 1, 2)]
    assert [span[:3] for span in reading.feed(given[1])] == [(9, 3, 4)]
    assert reading.finish() == GreedyLabels().feed(join(given))
    assert all(span.score == -0.5 for span in reading.finish())


def test_words_are_given_once_they_cannot_change() -> None:
    search = WordSearch(LEXICON, None, SearchOptions(beam=50, nbest=1))
    frames = Frames(log_probabilities("cats much cats much"))
    reading = Reading(BestPath(), search.stream(), stride=4)
    shown, committed = [], []
    for place in range(len(frames.scores)):
        found = reading.feed(Frames(frames.scores[place : place + 1]), 4 * (place + 1))
        committed += found.words
        shown.append((*(word.word for word in committed), *reading.tentative))
    decoded = reading.finish(4 * len(frames.scores))
    assert decoded.words == ("cats", "much", "cats", "much")
    words = tuple(word.word for word in committed)
    assert words and words == decoded.words[: len(words)]
    assert isinstance(committed[0], Word) and committed[0][1:] == decoded.word_times[0]
    assert len(set(shown)) >= 4


def test_a_sentence_without_frames_is_empty() -> None:
    search = WordSearch(LEXICON, None, SearchOptions())
    assert Reading(BestPath(), search.stream(), 4).finish(0) == Decoded((), (), ())
