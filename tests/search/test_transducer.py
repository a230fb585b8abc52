"""The transducer's word search against every sentence and every alignment of it."""

import itertools
import math
from dataclasses import replace
from functools import cache
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modessm_jax.decoding.transducer import Transducer
from modessm_jax.decoding.transducer_beam import beam
from modessm_jax.language.lexicon import Lexicon
from modessm_jax.language.ngram import NGram
from modessm_jax.phonemes import BLANK, CLASSES, SILENCE
from modessm_jax.search.options import SearchOptions, WordHypothesis
from modessm_jax.search.transducer import TransducerWordSearch
from modessm_jax.sequence import Sequence
from tests.decoding.transducers import Toy, parrot
from tests.losses.enumeration import rnnt_nats
from tests.search.test_ctc import TWO, random_lexicon, write_lm

D, NODES = 4, 97
USED = (BLANK, 3, 11, 39, SILENCE)
WIDE = SearchOptions(beam=512, beam_threshold=1e5, nbest=10_000)

Said = tuple[tuple[int, ...], tuple[str, ...]]
Scores = dict[tuple[str, ...], tuple[float, float, float]]


@cache
def toy(seed: int, used: tuple[int, ...] = USED) -> tuple[Toy, Transducer]:
    """Random; all classes but those in use are next to impossible."""
    random = np.random.default_rng(seed)
    bias = np.full(CLASSES, -30.0)
    bias[list(used)] = random.normal(size=len(used))
    made = Toy(random.normal(size=(NODES, D)), 2 * random.normal(size=(D, CLASSES)), bias)
    with jax.enable_x64(True):
        return made, made.transducer()


def random_frames(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, D)) * 2


def sayings(lexicon: Lexicon, most: int) -> dict[tuple[str, ...], set[tuple[int, ...]]]:
    """Every sentence that can be said with so many labels, and the label sequences that say it."""
    found: dict[tuple[str, ...], set[tuple[int, ...]]] = {}
    for count in range((most + 1) // 2 + 1):
        for words in itertools.product(lexicon.words, repeat=count):
            for sounds in itertools.product(*(lexicon.words[word] for word in words)):
                said = sum(((*sound, SILENCE) for sound in sounds), ())
                ways = [said, said[:-1], (SILENCE, *said), (SILENCE, *said[:-1])]
                short = {labels for labels in ways if len(labels) <= most}
                if short:
                    found.setdefault(words, set()).update(short)
    return found


def exhaustive(
    of: Toy, lexicon: Lexicon, lm: NGram | None, options: SearchOptions, frames: np.ndarray
) -> Scores:
    """Acoustic, language and total score of every sentence, best first."""
    scores: Scores = {}
    known: dict[tuple[int, ...], float] = {}
    for words, said in sayings(lexicon, len(frames)).items():
        for labels in said - known.keys():
            logits = of.logits(frames, labels)
            logits[..., BLANK] -= math.log(options.blank_penalty)
            known[labels] = -rnnt_nats(logits, list(labels))
        acoustic = max(known[labels] for labels in said)
        prior = 0.0 if lm is None else lm.score(words)
        total = options.acoustic_scale * acoustic + options.lm_weight * prior
        scores[words] = acoustic, prior, total + options.word_score * len(words)
    return dict(sorted(scores.items(), key=lambda item: (-item[1][2], item[0])))


def search(
    transducer: Transducer,
    lexicon: Lexicon,
    lm: NGram | None,
    options: SearchOptions,
    frames: np.ndarray,
) -> list[WordHypothesis]:
    with jax.enable_x64(True):
        return TransducerWordSearch(transducer, lexicon, lm, options)(frames)


def check(found: list[WordHypothesis], expected: Scores) -> None:
    """The same sentences with the same scores, in order."""
    assert {each.words for each in found} == set(expected) and len(found) == len(expected)
    for each in found:
        scores = (each.acoustic, each.lm, each.total)
        np.testing.assert_allclose(scores, expected[each.words], rtol=1e-6)
        assert each.complete and len(each.times) == len(each.words)
    totals = [total for _, _, total in expected.values()]
    np.testing.assert_allclose([each.total for each in found], totals, rtol=1e-6)


@pytest.mark.parametrize("seed", range(30))
def test_the_search_finds_what_trying_everything_finds(seed: int, tmp_path: Path):
    lexicon, used = random_lexicon(seed)
    assert used == USED
    of, transducer = toy(seed % 2)
    frames = random_frames(1 + seed % 5, seed)
    lm = None
    if seed % 3:
        lm = write_lm(tmp_path / "lm.arpa", [*lexicon.words][: 5 - seed % 2], seed, seed % 4 != 1)
    weights = replace(
        WIDE,
        lm_weight=0.7,
        word_score=[0.0, -0.6][seed % 2],
        acoustic_scale=[1.0, 0.4][seed // 2 % 2],
        blank_penalty=[1.0, 9.0][seed // 4 % 2],
    )
    found = search(transducer, lexicon, lm, weights, frames)
    check(found, exhaustive(of, lexicon, lm, weights, frames))


@pytest.mark.parametrize("known", [40, 20])
def test_every_homophone_is_found(known: int, tmp_path: Path):
    words = [f"word{index}" for index in range(40)]
    lexicon = Lexicon({word: ((3, 11),) for word in words} | {"other": ((3,), (3, 11))})
    lm = write_lm(tmp_path / "lm.arpa", words[:known], 3, unknown=False)
    of, transducer = toy(0)
    frames = random_frames(4, 1)
    expected = exhaustive(of, lexicon, lm, WIDE, frames)
    assert {(word,) for word in words} <= set(expected)
    check(search(transducer, lexicon, lm, WIDE, frames), expected)


def test_homophones_without_an_ngram_are_in_the_order_of_the_alphabet():
    lexicon = Lexicon({word: ((3,),) for word in "cab"})
    found = search(toy(0)[1], lexicon, None, WIDE, random_frames(1, 0))
    assert sorted(each.words for each in found) == [(), ("a",), ("b",), ("c",)]
    assert [each.words[0] for each in found if each.words] == ["a", "b", "c"]


def over_dictionaries(
    of: Toy, lexicon: Lexicon, lm: NGram, options: SearchOptions, frames: np.ndarray
) -> Scores:
    """The same search as a plain loop over labels and words said; empty if no word is finished."""
    sounds = [(sound, word) for word, variants in lexicon.words.items() for sound in set(variants)]

    def begun(labels: tuple[int, ...]) -> tuple[int, ...]:
        """The phonemes since the last silence."""
        after = [place + 1 for place, label in enumerate(labels) if label == SILENCE]
        return labels[after[-1] :] if after else labels

    def ending(labels: tuple[int, ...]) -> list[tuple[str, ...]]:
        """What may be added to the words where the labels end, or a silence follows them."""
        if not begun(labels):
            return [()]
        return [(word,) for sound, word in sounds if sound == begun(labels)]

    def following(said: Said) -> list[Said]:
        labels, words = said
        if len(labels) == len(frames):
            return []
        size = len(begun(labels))
        more = {s[size] for s, _ in sounds if len(s) > size and s[:size] == begun(labels)}
        longer = [((*labels, label), words) for label in more]
        if labels[-1:] == (SILENCE,):
            return longer
        return longer + [((*labels, SILENCE), (*words, *word)) for word in ending(labels)]

    def total(score: float, words: tuple[str, ...], prior: float) -> float:
        return score + options.lm_weight * prior + options.word_score * len(words)

    def ranked(said: Said, score: float) -> float:
        words, part = said[1], begun(said[0])
        ahead = [lm.alone(word) for sound, word in sounds if sound[: len(part)] == part]
        prior = sum(lm.word_scores(words)[:-1]) + (max(ahead) if part else 0)
        return total(score, words, prior)

    live: dict[Said, float] = {((), ()): 0.0}
    done: dict[tuple[str, ...], tuple[float, float, float]] = {}
    step = 0
    while live:
        after: dict[Said, float] = {}
        for (labels, words), score in live.items():
            frame = step - len(labels)
            logits = of.logits(frames[frame][None], labels)[0, -1]
            arcs = score + logits - np.log(np.exp(logits).sum())
            if frame < len(frames) - 1:
                stays = after.get((labels, words), -math.inf)
                after[labels, words] = np.logaddexp(stays, arcs[BLANK])
            for last in ending(labels) if frame == len(frames) - 1 else []:
                prior = lm.score((*words, *last))
                found = arcs[BLANK], prior, total(arcs[BLANK], (*words, *last), prior)
                known = done.get((*words, *last), (0, 0, -math.inf))
                done[(*words, *last)] = max(found, known, key=lambda each: each[2])
            for said in following((labels, words)):
                moves = after.get(said, -math.inf)
                after[said] = np.logaddexp(moves, arcs[said[0][-1]])
        order = sorted(after, key=lambda said: -ranked(said, after[said]))[: options.beam]
        reached = [ranked(said, after[said]) for said in order[:1]]
        reached += [each[2] for each in done.values()]
        least = max(reached, default=-math.inf) - options.beam_threshold
        live = {said: after[said] for said in order if ranked(said, after[said]) >= least}
        step += 1
    return dict(sorted(done.items(), key=lambda item: -item[1][2])[: options.nbest])


@pytest.mark.parametrize("beam", [2, 8])
def test_a_narrow_beam_keeps_what_the_search_over_dictionaries_keeps(beam: int, tmp_path: Path):
    narrow = SearchOptions(beam=beam, beam_threshold=9.0, word_score=0.5, nbest=4)
    for seed in range(16):
        lexicon, _ = random_lexicon(seed)
        lm = write_lm(tmp_path / f"{seed}.arpa", [*lexicon.words], seed)
        of, transducer = toy(0)
        frames = random_frames(1 + seed // 2, 100 + seed)
        found = search(transducer, lexicon, lm, narrow, frames)
        expected = over_dictionaries(of, lexicon, lm, narrow, frames)
        if expected:
            check(found, expected)
        else:
            assert found and not any(each.complete for each in found)


def test_at_most_nbest_are_given_and_they_are_the_best():
    lexicon, _ = random_lexicon(1)
    frames = random_frames(5, 1)
    every = search(toy(0)[1], lexicon, None, WIDE, frames)
    assert search(toy(0)[1], lexicon, None, replace(WIDE, nbest=3), frames) == every[:3]


def test_other_options_leave_the_first_search_alone(tmp_path: Path):
    lexicon, _ = random_lexicon(1)
    lm = write_lm(tmp_path / "lm.arpa", ["a", "b"], 1, unknown=False)
    frames = random_frames(5, 1)
    other = SearchOptions(beam=8, lm_weight=2.0, word_score=3.0, nbest=5)
    with jax.enable_x64(True):
        first = TransducerWordSearch(toy(0)[1], lexicon, lm, replace(other, word_score=0.0))
        before = first(frames)
        found = first.with_options(other)(frames)
        assert found == TransducerWordSearch(toy(0)[1], lexicon, lm, other)(frames) != before
        assert first(frames) == before


def test_a_stream_ends_with_what_the_whole_gives_and_keeps_what_is_stable(tmp_path: Path):
    random = np.random.default_rng(0)
    partly = 0
    for seed in range(6):
        lexicon, _ = random_lexicon(seed)
        lm = write_lm(tmp_path / f"{seed}.arpa", [*lexicon.words], seed)
        options = SearchOptions(beam=12, beam_threshold=9.0, word_score=0.5, nbest=4)
        frames = random_frames(12, 100 + seed)
        with jax.enable_x64(True):
            made = TransducerWordSearch(toy(0)[1], lexicon, lm, options)
            stream, stable = made.stream(), []
            for piece in np.split(frames, sorted(random.integers(0, 12, 3))):
                stream.advance(piece)
                found, labels = stream.partial(), stream.phonemes()
                assert len(found.words) == len(found.times) >= found.stable
                stable.append((found.words[: found.stable], labels.ids[: labels.stable].tolist()))
            whole = made(frames)
            assert stream.finish() == whole
        ids = stream.phonemes().ids.tolist()
        for words, labels in stable:
            assert whole[0].words[: len(words)] == words and ids[: len(labels)] == labels
            partly += len(labels) > 0
    assert partly > 5


def test_without_a_lexicon_the_phonemes_are_those_of_the_beam_search():
    """Against the search on the device, which is another program; and their frames and scores."""
    options = SearchOptions(beam=5, beam_threshold=1e9, nbest=1)
    of, transducer = toy(1)
    search_on_device = jax.jit(lambda x: beam(transducer, x, width=5, max_labels=6))
    for seed in range(10):
        frames = random_frames(6, seed)
        with jax.enable_x64(True):
            stream = TransducerWordSearch(transducer, None, None, options).stream()
            stream.advance(frames)
            (best,) = stream.finish()
            encoder = Sequence(jnp.asarray(frames[None]), jnp.ones((1, 6), bool))
            device = search_on_device(encoder)
        labels = stream.phonemes()
        assert best.words == () and labels.stable == len(labels.ids)
        assert labels.ids.tolist() == device.ids[0, 0, : device.lengths[0, 0]].tolist()
        np.testing.assert_allclose(best.acoustic, device.scores[0, 0], rtol=1e-6)
        said: tuple[int, ...] = ()
        for label, frame, score in zip(*labels[:3], strict=True):
            np.testing.assert_allclose(score, of.log_p(frames[frame], said)[label], rtol=1e-6)
            said = (*said, int(label))
        assert np.all(np.diff(labels.frames) >= 0)


def test_a_stream_that_has_ended_takes_no_more():
    stream = TransducerWordSearch(parrot(), TWO, None, SearchOptions(beam=20)).stream()
    with pytest.raises(ValueError, match="no frames"):
        stream.finish()
    stream.advance(frames_saying([20, 18, 40]))
    stream.finish()
    for again in (lambda: stream.advance(frames_saying([20])), stream.finish):
        with pytest.raises(ValueError, match="ended"):
            again()


def frames_saying(path: list[int]) -> np.ndarray:
    return np.eye(CLASSES, dtype=np.float32)[path]


def test_words_are_where_their_phonemes_are():
    path = [0, 20, 20, 0, 18, 0, 40, 0, 0, 0, 31, 18, 18]
    search = TransducerWordSearch(parrot(0.9), TWO, None, SearchOptions(beam=20))
    best = search(frames_saying(path))[0]
    assert best.words == ("key", "tea")
    assert best.times == ((1, 5), (10, 12))
    # Each of 13 blanks and 5 labels; other ways to say the same add little.
    assert best.acoustic == pytest.approx(18 * math.log(0.9), abs=0.1)


def test_a_silence_before_the_first_word_belongs_to_none():
    search = TransducerWordSearch(parrot(), TWO, None, SearchOptions(beam=20))
    best = search(frames_saying([40, 0, 20, 18, 40]))[0]
    assert best.words == ("key",) and best.times == ((2, 4),)
    assert best.acoustic == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize("path", [[0], [40], [0, 40, 0]])
def test_silence_alone_is_the_empty_sentence(path: list[int]):
    found = TransducerWordSearch(parrot(), TWO, None, SearchOptions(beam=20))(frames_saying(path))
    assert found[0].words == () and found[0].times == () and found[0].complete


def test_a_last_word_that_nothing_finishes_is_left_out_and_said_to_be():
    # The last word has more labels left than the frames allow.
    lexicon = Lexicon({"key": ((20, 18),), "tediously": ((31, 18, 9, 18, 37, 21, 18),)})
    search = TransducerWordSearch(parrot(), lexicon, None, SearchOptions(beam=1))
    (best,) = search(frames_saying([20, 18, 40, 31, 0]))
    assert best.words == ("key",) and best.times == ((0, 2),)
    assert not best.complete
    assert best.acoustic == pytest.approx(0, abs=1e-3)


def test_what_is_impossible_is_not_said_and_does_not_make_scores_nan():
    search = TransducerWordSearch(parrot(1.0), TWO, None, SearchOptions(beam=20))
    found = search(frames_saying([20, 18, 40]))
    assert found[0].words == ("key",) and found[0].acoustic == 0
    assert all(math.isfinite(each.total) for each in found)


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        (np.zeros((0, CLASSES), np.float32), "no frames"),
        (np.full((3, CLASSES), np.nan, np.float32), "frames hold NaN"),
        (np.full((3, CLASSES), np.inf, np.float32), "frames hold NaN or infinity"),
    ],
)
def test_bad_frames_are_refused(frames: np.ndarray, message: str):
    search = TransducerWordSearch(parrot(), TWO, None, SearchOptions(beam=20))
    with pytest.raises(ValueError, match=message):
        search(frames)


def test_a_network_that_diverged_is_named():
    search = TransducerWordSearch(parrot(math.nan), TWO, None, SearchOptions(beam=20))
    with pytest.raises(ValueError, match="joint network gives NaN"):
        search(frames_saying([20]))
