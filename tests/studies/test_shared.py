"""Tables, and error rates over several seeds: rates of sums, differences trial by trial."""

import pytest

from modessm_jax.text import Edits, total
from studies.shared import difference, table, together


def trial(errors: int, length: int) -> Edits:
    return Edits(substitutions=errors, insertions=0, deletions=0, reference_length=length)


OURS = [[trial(1, 10), trial(0, 30)], [trial(2, 10), trial(1, 30)]]


def test_rates_are_of_the_sums():
    assert together(OURS) == [trial(3, 20), trial(1, 60)]
    assert total(together(OURS)).rate == pytest.approx(4 / 80)


def test_the_same_decodings_do_not_differ_and_more_errors_in_each_do():
    assert difference(OURS, OURS) == "0.00 % (0.00 % to 0.00 %)"
    # One more error for every ten phonemes of every trial: however trials are drawn, 10 points.
    worse = [
        [trial(t.substitutions + t.reference_length // 10, t.reference_length) for t in seed]
        for seed in OURS
    ]
    assert difference(worse, OURS) == "10.00 % (10.00 % to 10.00 %)"
    assert difference(OURS, worse) == "-10.00 % (-10.00 % to -10.00 %)"


def test_seeds_must_have_decoded_the_same_trials():
    with pytest.raises(ValueError, match="zip"):
        together([OURS[0], OURS[1][:1]])


def test_a_table_in_markdown():
    assert table(("run", "PER"), [["a", "1 %"], ["b", "2 %"]]).splitlines() == [
        "| run | PER |",
        "| --- | --- |",
        "| a | 1 % |",
        "| b | 2 % |",
    ]
