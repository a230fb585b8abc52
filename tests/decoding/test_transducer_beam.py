"""The beam search against trying every label sequence, and against a search over dictionaries."""

import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modessm_jax.decoding.transducer_beam import BeamResult, Fusion, beam
from modessm_jax.sequence import Sequence
from tests.decoding.transducers import CLASSES, Labels, best_first, random_frames, random_toy

FRAMES, LABELS = 4, 3
ALL = 15  # sequences of up to three of two labels
WEIGHT = 0.7


def random_bigram(seed: int) -> np.ndarray:
    """Log probabilities of a label after a label (or the start, 0); the blank's are no numbers."""
    shares = np.random.default_rng(seed).dirichlet(np.ones(CLASSES - 1), size=CLASSES)
    return np.concatenate([np.full((CLASSES, 1), np.nan), np.log(shares)], axis=1)


def bigram_fusion(table: np.ndarray) -> Fusion:
    return Fusion(
        start=lambda batch: jnp.zeros((batch,), jnp.int32),
        score=lambda state: jnp.asarray(table)[state],
        advance=lambda _, labels: labels,
        weight=WEIGHT,
    )


def bigram_score(table: np.ndarray, labels: Labels) -> float:
    return sum(table[pair] for pair in itertools.pairwise((0, *labels)))


def lists(found: BeamResult) -> list[dict[Labels, float]]:
    """Of each example the label sequences found and their scores, in order."""
    result = []
    ids, lengths, scores = (np.asarray(x) for x in (found.ids, found.lengths, found.scores))
    for row in range(len(ids)):
        real = np.isfinite(scores[row])
        sequences = [tuple(ids[row, k, : lengths[row, k]].tolist()) for k in np.flatnonzero(real)]
        assert len(set(sequences)) == len(sequences), "a label sequence was found twice"
        assert (scores[row, ~real] == -np.inf).all() and (lengths[row, ~real] == 0).all()
        result.append(dict(zip(sequences, scores[row, real].tolist(), strict=True)))
    beyond = np.arange(ids.shape[2])[None, None, :] >= lengths[..., None]
    assert (ids[beyond] == 0).all() and ids.dtype == np.int32
    return result


def assert_same(found: list[dict[Labels, float]], expected: list[dict[Labels, float]]) -> None:
    for a, b in zip(found, expected, strict=True):
        assert list(a) == list(b)
        np.testing.assert_allclose(list(a.values()), list(b.values()), rtol=1e-9)


def over_dictionaries(
    log_p: Callable[[np.ndarray, Labels], np.ndarray],
    frames: np.ndarray,
    width: int,
    most: int,
    table: np.ndarray | None = None,
) -> dict[Labels, float]:
    """The same search as a plain loop: label sequences to log probabilities."""

    def fused(item: tuple[Labels, float]) -> float:
        return item[1] + (0 if table is None else WEIGHT * bigram_score(table, item[0]))

    def best(scores: dict[Labels, float]) -> dict[Labels, float]:
        possible = [item for item in scores.items() if item[1] > -np.inf]
        return dict(sorted(possible, key=fused, reverse=True)[:width])

    live: dict[Labels, float] = {(): 0.0} if len(frames) else {}
    done: dict[Labels, float] = {}
    for step in range(len(frames) + most):
        following: dict[Labels, float] = {}
        for labels, score in live.items():
            arcs = score + log_p(frames[step - len(labels)], labels)
            into = done if step - len(labels) == len(frames) - 1 else following
            into[labels] = np.logaddexp(into.get(labels, -np.inf), arcs[0])
            for label in range(1, CLASSES if len(labels) < most else 1):
                longer = (*labels, label)
                following[longer] = np.logaddexp(following.get(longer, -np.inf), arcs[label])
        live = best(following)
    return best(done)


def test_a_beam_that_holds_everything_is_exact():
    with jax.enable_x64(True):
        toy = random_toy(0)
        encoder, frames = random_frames(1, 200, FRAMES)
        search = jax.jit(lambda x: beam(toy.transducer(), x, width=ALL, max_labels=LABELS))
        found = search(encoder)
    expected = [toy.every_score(of_example, LABELS) for of_example in frames]
    assert_same(lists(found), expected)
    assert {len(of_example) for of_example in frames} == set(range(FRAMES + 1))
    assert len({next(iter(scores), None) for scores in expected}) > 5
    np.testing.assert_array_equal(found.fused, found.scores)


def test_a_language_model_changes_the_winner_as_it_should():
    table = random_bigram(0)
    with jax.enable_x64(True):
        toy, fusion = random_toy(2), bigram_fusion(table)
        encoder, frames = random_frames(3, 100, FRAMES)
        search = jax.jit(
            lambda x: beam(toy.transducer(), x, width=ALL, max_labels=LABELS, fusion=fusion)
        )
        result = search(encoder)
    changed = 0
    for row, (found, of_example) in enumerate(zip(lists(result), frames, strict=True)):
        acoustic = toy.every_score(of_example, LABELS)
        prior = {labels: WEIGHT * bigram_score(table, labels) for labels in acoustic}
        fused = best_first({labels: acoustic[labels] + prior[labels] for labels in acoustic})
        assert_same([found], [{labels: acoustic[labels] for labels in fused}])
        np.testing.assert_allclose(result.fused[row, : len(fused)], list(fused.values()), rtol=1e-9)
        changed += list(fused)[:1] != list(acoustic)[:1]
    assert changed > 5


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("width", [1, 3])
def test_a_narrow_beam_keeps_what_the_search_over_dictionaries_keeps(width, fused):
    table = random_bigram(1) if fused else None
    with jax.enable_x64(True):
        toy = random_toy(4)
        encoder, frames = random_frames(5, 60, 7)
        fusion = None if table is None else bigram_fusion(table)
        search = jax.jit(
            lambda x: beam(toy.transducer(), x, width=width, max_labels=5, fusion=fusion)
        )
        found = lists(search(encoder))
    expected = [over_dictionaries(toy.log_p, of_example, width, 5, table) for of_example in frames]
    assert_same(found, expected)
    if width > 1:
        pruned = 0
        for scores, of_example in zip(found, frames, strict=True):
            every = toy.every_score(of_example, 5)
            assert all(score < every[labels] + 1e-9 for labels, score in scores.items())
            pruned += any(score < every[labels] - 1e-9 for labels, score in scores.items())
        assert pruned > 10


def test_neither_padding_nor_neighbours_nor_jit_matter():
    def search(x: Sequence) -> Any:
        return beam(transducer, x, width=4, max_labels=LABELS)

    with jax.enable_x64(True):
        transducer = random_toy(6).transducer()
        encoder, frames = random_frames(7, 5, FRAMES, fill=1e3)
        together = lists(jax.jit(search)(encoder))
        number = next(n for n, own in enumerate(frames) if 0 < len(own) < FRAMES)
        values = jnp.asarray(frames[number])[None]
        alone = Sequence(values, jnp.ones(values.shape[:2], bool))
        assert_same(lists(search(alone)), [together[number]])


def test_impossible_arcs_are_never_taken():
    def log_p(frame: np.ndarray, labels: Labels) -> np.ndarray:
        forbidden = (frame + toy.outputs(labels)[-1])[:CLASSES] > 1
        return np.where(forbidden, -np.inf, toy.log_p(frame, labels))

    def joint(encoder: Any, predictor: Any) -> Any:
        forbidden = (encoder + predictor)[..., :CLASSES] > 1
        return jnp.where(forbidden, -jnp.inf, transducer.joint(encoder, predictor))

    with jax.enable_x64(True):
        toy = random_toy(8)
        transducer = toy.transducer()
        encoder, frames = random_frames(9, 100, FRAMES)
        search = jax.jit(
            lambda x: beam(transducer._replace(joint=joint), x, width=ALL, max_labels=LABELS)
        )
        found = lists(search(encoder))
    expected = [over_dictionaries(log_p, of_example, ALL, LABELS) for of_example in frames]
    assert_same(found, expected)
    assert {0, 1, ALL - 1} < {len(scores) for scores in found}


@pytest.mark.parametrize("frame", [0, 1, FRAMES - 1])
def test_nan_is_seen_in_the_scores_of_its_own_example(frame):
    transducer = random_toy(6).transducer()
    encoder = Sequence(jnp.ones((2, FRAMES, 5)), jnp.ones((2, FRAMES), bool))
    search = jax.jit(lambda x: beam(transducer, x, width=4, max_labels=LABELS))
    clean = search(encoder)
    found = search(encoder.with_values(encoder.values.at[1, frame].set(jnp.nan)))
    for scores in (found.scores, found.fused):
        assert np.isnan(scores[1, 0]) and not np.isnan(scores[0]).any()
    assert (found.lengths[1, 0], found.ids[1, 0].max()) == (0, 0)
    np.testing.assert_array_equal(found.scores[0], clean.scores[0])


@pytest.mark.parametrize("sizes", [{"width": 0, "max_labels": 1}, {"width": 1, "max_labels": 0}])
def test_empty_beams_are_refused(sizes):
    encoder = Sequence(jnp.zeros((1, 2, 5)), jnp.ones((1, 2), bool))
    with pytest.raises(ValueError, match="at least 1"):
        beam(random_toy(0).transducer(), encoder, **sizes)
