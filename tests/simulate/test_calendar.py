from dataclasses import replace

import pytest

from modessm_jax.simulate.calendar import Sizes, drawn

SIZES = Sizes(sessions=5, train=45, val=7, test=4, min_words=3, max_words=6)


def plan(**changes):
    return drawn(replace(SIZES, **changes), electrodes=8, seed=0)


def test_sessions_are_days_in_order_of_name():
    names = [session.name for session in plan().sessions]
    assert names == sorted(set(names)) and len(names) == 5
    assert names[0] == "sim.2025.01.07"


def test_every_sentence_occurs_once_and_splits_have_their_sizes():
    spoken = [
        (prompt.split, prompt.sentence)
        for session in plan().sessions
        for block in session.blocks
        for prompt in block.prompts
    ]
    assert len({sentence for _, sentence in spoken}) == len(spoken) == plan().trials == 5 * 56
    for split, count in (("train", 45), ("val", 7), ("test", 4)):
        assert sum(name == split for name, _ in spoken) == 5 * count


def test_training_has_blocks_of_its_own_and_both_halves_have_both_modes():
    for session in plan().sessions:
        blocks = session.blocks
        assert [block.number for block in blocks] == list(range(1, 1 + len(blocks)))
        modes = {True: set(), False: set()}
        for block in blocks:
            splits = {prompt.split for prompt in block.prompts}
            assert splits == {"train"} or "train" not in splits
            modes["train" in splits].add(block.mode.name)
        assert modes[True] == modes[False] == {"vocalized", "silent"}


def test_splits_may_be_empty_or_tiny():
    (session,) = plan(sessions=1, train=1, val=0, test=0).sessions
    assert [len(block.prompts) for block in session.blocks] == [1]
    assert session.splits == ["train"]


def test_the_first_modes_of_sessions_differ():
    assert len({session.blocks[0].mode for session in plan(sessions=8).sessions}) == 2


def test_too_many_sentences_are_refused():
    with pytest.raises(ValueError, match="fewer sentences"):
        plan(sessions=1, min_words=9, max_words=9)
