"""However the searches are shared out, every task gets its own result."""

import io
import os

import pytest

from modessm_jax.language.lexicon import Lexicon
from modessm_jax.words.ctc_search import SearchOptions
from modessm_jax.words.decoder import Task, WordDecoder
from tests.words.spoken import LEXICON, SENTENCES, log_probabilities, write_lm

GIVEN = [log_probabilities(sentence) for sentence in SENTENCES]
# The likeliest of homophones is the first in the lexicon, unless the n-gram is asked.
ASKED, NOT_ASKED = SearchOptions(beam=20, lm_weight=1.0), SearchOptions(beam=20, lm_weight=0.0)
TASKS = [Task(trial, [ASKED, NOT_ASKED][trial % 2]) for trial in (4, 3, 2, 1, 0, 0)]


def read(decoder: WordDecoder) -> list[str]:
    with decoder:
        return [" ".join(found.hypotheses[0].words) for found in decoder(TASKS)]


@pytest.fixture(scope="module")
def lm(tmp_path_factory):
    return write_lm(tmp_path_factory.mktemp("lm"))


def test_results_are_in_the_order_of_the_tasks(lm):
    shown = io.StringIO()
    found = read(WordDecoder(LEXICON, lm, GIVEN, stream=shown))
    assert found == [
        "too much two cats",
        "much",
        "two cats too much",
        "too much",
        *["two cats"] * 2,
    ]
    assert "sentence 6/6" in shown.getvalue()
    assert "frames/s" in shown.getvalue()


def test_processes_find_what_one_finds(lm):
    decoder = WordDecoder(LEXICON, lm, GIVEN, processes=2, stream=io.StringIO())
    assert read(decoder) == read(WordDecoder(LEXICON, lm, GIVEN, stream=io.StringIO()))


class _Fatal(Lexicon):
    """Ends the process that receives it."""

    def __reduce__(self):
        return os._exit, (1,)


def test_a_process_that_was_ended_is_explained():
    decoder = WordDecoder(_Fatal(LEXICON.words), None, GIVEN, processes=2, stream=io.StringIO())
    with pytest.raises(MemoryError, match="take fewer --processes"):
        read(decoder)
