"""Which heads there are, and which a model has."""

import pytest

from modessm_jax.streaming.head import Head
from tests.streaming.tiny import run_of


@pytest.mark.parametrize(
    ("name", "kind", "width", "message"),
    [
        ("gru", "rnn", 1, "head = 'rnn': choose ctc or rnnt"),
        ("gru", "rnnt", 1, "has no transducer"),
        ("gru", "ctc", 2, "width = 2: give 1, or with head = 'rnnt' more"),
        ("gru", "ctc", 0, "width = 0"),
    ],
)
def test_what_cannot_be_read_is_refused(name: str, kind: str, width: int, message: str) -> None:
    run = run_of(name)
    with pytest.raises(ValueError, match=message):
        Head(run.functional, run.params, kind, width)
