from dataclasses import replace

import pytest

from modessm_jax.simulate.calendar import (
    Sizes,
    session_days,
    session_name,
    sessions_of_blocks,
)

SIZES = Sizes(sessions=5, train=45, val=7, test=4, electrodes=8, min_words=3, max_words=6, seed=0)


def test_sessions_are_days_in_order_of_name():
    names = [session_name(day) for day in session_days(SIZES)]
    assert names == sorted(set(names)) and len(names) == 5
    assert names[0] == "sim.2025.01.07"


def test_every_sentence_occurs_once_and_splits_have_their_sizes():
    spoken = [
        (split, sentence)
        for blocks in sessions_of_blocks(SIZES)
        for block in blocks
        for split, sentence in block.trials
    ]
    assert len({sentence for _, sentence in spoken}) == len(spoken) == SIZES.trials
    for split, count in (("train", 45), ("val", 7), ("test", 4)):
        assert sum(name == split for name, _ in spoken) == 5 * count


def test_training_has_blocks_of_its_own_and_both_halves_have_both_modes():
    for blocks in sessions_of_blocks(SIZES):
        assert [block.number for block in blocks] == list(range(1, 1 + len(blocks)))
        modes = {True: set(), False: set()}
        for block in blocks:
            splits = {split for split, _ in block.trials}
            assert splits == {"train"} or "train" not in splits
            modes["train" in splits].add(block.mode.name)
        assert modes[True] == modes[False] == {"vocalized", "silent"}


def test_splits_may_be_empty_or_tiny():
    sizes = replace(SIZES, sessions=1, train=1, val=0, test=0)
    (blocks,) = sessions_of_blocks(sizes)
    assert [len(block.trials) for block in blocks] == [1]


def test_the_first_modes_of_sessions_differ():
    assert len({blocks[0].mode for blocks in sessions_of_blocks(replace(SIZES, sessions=8))}) == 2


def test_too_many_sentences_are_refused():
    with pytest.raises(ValueError, match="fewer sentences"):
        next(sessions_of_blocks(replace(SIZES, sessions=1, min_words=9, max_words=9)))
