"""The word search against all sentences and alignments, whole and in pieces."""

import itertools
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modessm_jax.language.lexicon import Lexicon
from modessm_jax.language.ngram import NGram
from modessm_jax.phonemes import BLANK, CLASSES, SILENCE
from modessm_jax.search.ctc import WordSearch
from modessm_jax.search.options import SearchOptions, WordHypothesis

WIDE = SearchOptions(beam=100_000, beam_threshold=1e5, nbest=100_000)


def write_lm(path: Path, words: list[str], seed: int, unknown: bool = True) -> NGram:
    """A random bigram, in which the last word occurs after no other; all numbers log10."""
    random = np.random.default_rng(seed)
    names = ["<unk>"] * unknown + ["<s>", "</s>", *words]
    pairs = [(a, b) for a in ["<s>", *words[:-1]] for b in [*words[:-1], "</s>"]]
    pairs = [pair for pair in pairs if random.random() < 0.6]
    lines = [f"\\data\\\nngram 1={len(names)}\nngram 2={len(pairs)}\n\n\\1-grams:"]
    for name in names:
        score = -99 if name == "<s>" else -random.uniform(0.3, 2)
        lines.append(f"{score:.4f}\t{name}\t{-random.uniform(0, 1):.4f}")
    lines.append("\n\\2-grams:")
    lines += [f"{-random.uniform(0.1, 1.5):.4f}\t{a} {b}" for a, b in pairs]
    path.write_text("\n".join([*lines, "\n\\end\\\n"]), encoding="utf-8")
    return NGram(path)


def random_frames(
    frames: int, seed: int, used: tuple[int, ...] = tuple(range(CLASSES))
) -> np.ndarray:
    """Log-probabilities, spread over the classes in use."""
    random = np.random.default_rng(seed)
    logits = np.full((frames, CLASSES), -30.0)
    logits[:, used] = random.normal(size=(frames, len(used))) * 2
    logits -= np.log(np.exp(logits).sum(axis=1, keepdims=True))
    return logits.astype(np.float32)


def sentences_by_path(
    lexicon: Lexicon, frames: np.ndarray, used: tuple[int, ...]
) -> dict[tuple[str, ...], float]:
    """Of every sentence the score of its best path, by trying all paths over the used classes."""
    of_sounds: dict[tuple[int, ...], list[str]] = {}
    for word, variants in lexicon.words.items():
        for variant in variants:
            of_sounds.setdefault(variant, []).append(word)
    best: dict[tuple[str, ...], float] = {}
    for path in itertools.product(used, repeat=len(frames)):
        said = [label for label, _ in itertools.groupby(path) if label != BLANK]
        parts = [
            tuple(part) for silent, part in itertools.groupby(said, SILENCE.__eq__) if not silent
        ]
        if all(part in of_sounds for part in parts):
            score = float(frames[range(len(frames)), path].sum(dtype=np.float64))
            for words in itertools.product(*(of_sounds[part] for part in parts)):
                best[words] = max(score, best.get(words, -math.inf))
    return best


def exhaustive(
    lexicon: Lexicon,
    lm: NGram | None,
    options: SearchOptions,
    frames: np.ndarray,
    used: tuple[int, ...],
) -> dict[tuple[str, ...], tuple[float, float, float]]:
    """Acoustic, language and total score of every sentence that fits into the frames."""
    penalised = frames.astype(np.float64)
    penalised[:, BLANK] -= math.log(options.blank_penalty)
    scores = {}
    for words, acoustic in sentences_by_path(lexicon, penalised, used).items():
        prior = 0.0 if lm is None else lm.score(words)
        total = options.acoustic_scale * acoustic + options.lm_weight * prior
        scores[words] = (acoustic, prior, total + options.word_score * len(words))
    return scores


def random_lexicon(seed: int) -> tuple[Lexicon, tuple[int, ...]]:
    """A few words of one to three of three phonemes, and the classes they use."""
    random = np.random.default_rng(seed)
    sounds = (3, 11, 39)
    words = {}
    for index in range(5):
        count = 1 + int(random.random() < 0.4)
        words["abcde"[index]] = tuple(
            {tuple(map(int, random.choice(sounds, random.integers(1, 4)))) for _ in range(count)}
        )
    return Lexicon(words), (BLANK, *sounds, SILENCE)


def check(found: list[WordHypothesis], expected: dict[tuple[str, ...], tuple[float, float, float]]):
    """The same sentences with the same scores, in order."""
    assert {hypothesis.words for hypothesis in found} == set(expected)
    assert len(found) == len(expected)
    for hypothesis in found:
        scores = (hypothesis.acoustic, hypothesis.lm, hypothesis.total)
        np.testing.assert_allclose(scores, expected[hypothesis.words], rtol=1e-5, atol=1e-4)
        assert hypothesis.complete
    totals = [hypothesis.total for hypothesis in found]
    assert totals == sorted(totals, reverse=True)


@pytest.mark.parametrize("seed", range(12))
def test_the_search_finds_what_trying_everything_finds(seed: int, tmp_path: Path):
    lexicon, used = random_lexicon(seed)
    frames = random_frames(1 + seed % 6, seed, used)
    lm = None
    if seed % 3:
        lm = write_lm(tmp_path / "lm.arpa", [*lexicon.words][: 5 - seed % 2], seed, seed % 4 != 1)
    weights = SearchOptions(
        beam=WIDE.beam,
        beam_threshold=WIDE.beam_threshold,
        nbest=WIDE.nbest,
        lm_weight=0.7,
        word_score=[0.0, -0.6][seed % 2],
        acoustic_scale=[1.0, 0.4][seed // 2 % 2],
        blank_penalty=[1.0, 9.0][seed // 4 % 2],
    )
    found = WordSearch(lexicon, lm, weights)(frames)
    check(found, exhaustive(lexicon, lm, weights, frames, used))


def test_words_unknown_to_a_model_without_an_unknown_word_are_within_reach(tmp_path: Path):
    lexicon = Lexicon({"known": ((3,),), "name": ((11,), (3,))})
    lm = write_lm(tmp_path / "lm.arpa", ["known"], 0, unknown=False)
    assert "name" not in lm
    used = (BLANK, 3, 11, SILENCE)
    frames = random_frames(5, 0, used)
    check(WordSearch(lexicon, lm, WIDE)(frames), exhaustive(lexicon, lm, WIDE, frames, used))


@pytest.mark.parametrize("known", [40, 20])
def test_every_homophone_is_found(known: int, tmp_path: Path):
    words = [f"word{index}" for index in range(40)]
    lexicon = Lexicon({word: ((5, 6),) for word in words} | {"other": ((5,), (5, 6))})
    lm = write_lm(tmp_path / "lm.arpa", words[:known], 3, unknown=False)
    frames = random_frames(4, 1, used := (BLANK, 5, 6, SILENCE))
    expected = exhaustive(lexicon, lm, WIDE, frames, used)
    assert {(word,) for word in words} <= set(expected)
    check(WordSearch(lexicon, lm, WIDE)(frames), expected)


def pieces(frames: np.ndarray, random: np.random.Generator) -> Iterator[np.ndarray]:
    """The frames in chunks of one to seven."""
    while len(frames):
        cut = int(random.integers(1, 8))
        yield frames[:cut]
        frames = frames[cut:]


def test_a_stream_ends_with_what_the_whole_gives(tmp_path: Path):
    lexicon, used = random_lexicon(1)
    lm = write_lm(tmp_path / "lm.arpa", [*lexicon.words], 1)
    search = WordSearch(lexicon, lm, SearchOptions(beam=30, beam_threshold=12.0, nbest=20))
    random = np.random.default_rng(0)
    trials = [random_frames(int(random.integers(1, 60)), seed, used) for seed in range(20)]
    # Two at a time: streams of one search must not share anything that changes.
    for one, other in zip(trials[::2], trials[1::2], strict=True):
        streams = [search.stream(), search.stream()]
        for given in itertools.zip_longest(pieces(one, random), pieces(other, random)):
            for stream, chunk in zip(streams, given, strict=True):
                if chunk is not None:
                    stream.feed(chunk)
        assert [stream.finish() for stream in streams] == [search(one), search(other)]


def test_what_is_stable_of_a_stream_is_in_every_hypothesis_and_stays(tmp_path: Path):
    lexicon, used = random_lexicon(1)
    lm = write_lm(tmp_path / "lm.arpa", [*lexicon.words], 1)
    search = WordSearch(lexicon, lm, SearchOptions(beam=30, beam_threshold=6.0, nbest=1000))
    stable = 0
    for seed in range(20):
        stream, before = search.stream(), 0
        found = stream.partial()
        assert found == ((), (), 0)
        for piece in pieces(random_frames(40, seed, used), np.random.default_rng(seed)):
            shown = stream.feed(piece)
            found = stream.partial()
            assert found.words == shown and len(found.times) == len(shown)
            assert before <= found.stable <= len(shown)
            before = found.stable
        everything = stream.finish()
        assert {each.words[:before] for each in everything} == {found.words[:before]}
        stable += before
    assert stable > 20


def frames_saying(path: list[int], certainty: float = 0.9) -> np.ndarray:
    """One class a frame, said with the given probability."""
    rest = (1 - certainty) / (CLASSES - 1)
    return np.log(np.where(np.eye(CLASSES)[path] > 0, certainty, rest)).astype(np.float32)


TWO = Lexicon({"key": ((20, 18),), "tea": ((31, 18),)})


def test_words_are_where_their_phonemes_are():
    path = [0, 20, 20, 0, 18, 0, 40, 0, 0, 40, 31, 18, 18]
    best = WordSearch(TWO, None, SearchOptions())(frames_saying(path))[0]
    assert best.words == ("key", "tea")
    assert best.times == ((1, 5), (10, 13))
    assert best.acoustic == pytest.approx(len(path) * math.log(0.9), rel=1e-5)


def test_shown_words_are_those_finished_so_far():
    stream = WordSearch(TWO, None, SearchOptions()).stream()
    shown = [stream.feed(frames_saying([label])) for label in (20, 0, 18, 40, 31, 18, 40, 0)]
    assert shown == [()] * 4 + [("key",)] * 3 + [("key", "tea")]


def test_a_last_word_that_nothing_finishes_is_left_out_and_said_to_be():
    frames = frames_saying([20, 18, 40, 31, 31], certainty=1 - 1e-9)
    (best,) = WordSearch(TWO, None, SearchOptions(beam=1))(frames)
    assert best.words == ("key",) and best.times == ((0, 2),)
    assert not best.complete
    assert best.acoustic == pytest.approx(0, abs=1e-3)


def test_silence_alone_is_the_empty_sentence():
    found = WordSearch(TWO, None, SearchOptions())(frames_saying([0, 40, 0]))
    assert found[0].words == () and found[0].times == ()


def test_the_penalty_divides_the_blank_and_the_scale_multiplies_everything():
    frames = random_frames(7, 0)
    search = WordSearch(TWO, None, SearchOptions(blank_penalty=90.0, acoustic_scale=0.325))
    probabilities = np.exp(frames.astype(np.float64))
    probabilities[:, 0] /= 90
    expected = 0.325 * np.log(probabilities)
    np.testing.assert_allclose(search.emissions(frames)[:, :CLASSES], expected, rtol=1e-5)
    plain = WordSearch(TWO, None, SearchOptions())
    np.testing.assert_array_equal(plain.emissions(frames)[:, :CLASSES], frames)


def test_what_is_impossible_is_not_said_and_does_not_make_scores_nan():
    frames = frames_saying([20, 18, 40])
    frames[:, 31] = -np.inf
    found = WordSearch(TWO, None, WIDE)(frames)
    assert found[0].words == ("key",)
    assert all(math.isfinite(hypothesis.total) for hypothesis in found)


def test_the_layout_of_the_frames_in_memory_does_not_matter():
    frames = random_frames(6, 2)
    search = WordSearch(TWO, None, WIDE)
    assert search(np.asfortranarray(frames)) == search(frames)


def test_other_options_share_the_tree_and_leave_the_first_search_alone(tmp_path: Path):
    lexicon, used = random_lexicon(1)
    lm = write_lm(tmp_path / "lm.arpa", ["a", "b"], 1, unknown=False)
    frames = random_frames(8, 1, used)
    first = WordSearch(lexicon, lm, SearchOptions())
    before = first(frames)
    other = SearchOptions(lm_weight=2.0, word_score=3.0, nbest=5)
    found = first.with_options(other)(frames)
    assert found == WordSearch(lexicon, lm, other)(frames) != before
    assert first(frames) == before


def test_at_most_nbest_are_given_and_they_are_the_best():
    lexicon, used = random_lexicon(1)
    frames = random_frames(8, 1, used)
    few = SearchOptions(beam=WIDE.beam, beam_threshold=WIDE.beam_threshold, nbest=3)
    assert WordSearch(lexicon, None, few)(frames) == WordSearch(lexicon, None, WIDE)(frames)[:3]


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        (np.zeros((0, CLASSES), np.float32), "no frames"),
        (np.zeros((3, 40), np.float32), "40 classes, not 41"),
        (np.full((3, CLASSES), np.nan, np.float32), "NaN"),
        (np.full((3, CLASSES), np.inf, np.float32), r"\+inf"),
    ],
)
def test_bad_frames_are_refused(frames: np.ndarray, message: str):
    search = WordSearch(TWO, None, SearchOptions())
    with pytest.raises(ValueError, match=message):
        search(frames)
    with pytest.raises(ValueError, match=message):
        search.stream().feed(frames)


def test_a_stream_that_has_ended_takes_no_more():
    stream = WordSearch(TWO, None, SearchOptions()).stream()
    stream.feed(frames_saying([20, 18, 40]))
    stream.finish()
    with pytest.raises(ValueError, match="ended"):
        stream.feed(frames_saying([20]))
    with pytest.raises(ValueError, match="ended"):
        stream.finish()


def test_an_empty_lexicon_and_a_stream_without_frames_are_refused():
    with pytest.raises(ValueError, match="no words"):
        WordSearch(Lexicon({}), None, SearchOptions())
    with pytest.raises(ValueError, match="no frames"):
        WordSearch(TWO, None, SearchOptions()).stream().finish()


@pytest.mark.parametrize(
    "options",
    [
        {"beam": 0},
        {"nbest": 0},
        {"beam_threshold": 0.0},
        {"acoustic_scale": math.nan},
        {"blank_penalty": -1.0},
        {"lm_weight": math.inf},
        {"word_score": math.nan},
    ],
)
def test_options_out_of_range_are_named(options: dict[str, Any]):
    with pytest.raises(ValueError, match=f"{next(iter(options))} = "):
        SearchOptions(**options)
