"""Every task gets its own result, in one process or several."""

import gzip
import os
import re

import pytest

from modessm_jax.language.lexicon import Lexicon
from modessm_jax.search.options import SearchOptions
from modessm_jax.words.decoder import Task, Vocabulary, search_trials
from tests.words.spoken import LEXICON, encodings, ids, posteriors, write_lm

# The most likely of homophones is the first in the lexicon, unless the n-gram has a weight.
WITH_LM, WITHOUT_LM = (
    SearchOptions(beam=20, lm_weight=1.0),
    SearchOptions(beam=20, lm_weight=0.0),
)
TASKS = [Task(trial, [WITH_LM, WITHOUT_LM][trial % 2]) for trial in (4, 3, 2, 1, 0, 0)]


def search(lexicon: Lexicon, lm, processes: int = 1) -> list[str]:
    found = search_trials(Vocabulary(lexicon, lm), posteriors(), TASKS, processes)
    return [" ".join(each.hypotheses[0].words) for each in found]


@pytest.fixture(scope="module")
def lm(tmp_path_factory):
    return write_lm(tmp_path_factory.mktemp("lm"))


def test_words_unknown_to_the_ngram_are_counted(lm):
    vocabulary = Vocabulary(LEXICON, lm)
    assert vocabulary.describe().endswith("2-gram lm.arpa; 0 of the words unknown to it")
    more = Lexicon({**LEXICON.words, "dogs": (ids("D AO G Z"),)})
    wider = vocabulary._replace(lexicon=more)
    assert wider.describe().endswith("; 1 of the words unknown to it")
    assert wider._replace(lm=None).describe() == "lexicon of 5 words, no n-gram"


def respelt(lm, folder):
    """The n-gram with its words in capitals."""
    text = lm.read_text()
    for word in LEXICON.words:
        text = re.sub(rf"\b{word}\b", word.upper(), text)
    (folder / "upper.arpa").write_text(text)
    return folder / "upper.arpa"


def test_an_ngram_in_capitals_decodes_as_the_same_in_lower_case(lm, tmp_path):
    upper = respelt(lm, tmp_path)
    assert Vocabulary(LEXICON, upper).describe().endswith("; 0 of the words unknown to it")
    assert search(LEXICON, upper) == search(LEXICON, lm)


@pytest.mark.parametrize("head", [posteriors, encodings])
def test_its_scores_are_the_same_too(lm, tmp_path, head):
    scores = []
    for each in (lm, respelt(lm, tmp_path)):
        found = search_trials(Vocabulary(LEXICON, each), head(), [Task(0, WITH_LM)])
        scores.append([(h.words, h.lm, h.total) for h in found[0].hypotheses])
    assert scores[0] == scores[1] and scores[0][0][0] == ("two", "cats")


def test_a_gzipped_ngram_decodes_as_it_does_unpacked(lm, tmp_path):
    (tmp_path / "lm.gz").write_bytes(gzip.compress(lm.read_bytes()))
    assert search(LEXICON, tmp_path / "lm.gz") == search(LEXICON, lm)


def test_an_ngram_of_none_of_the_words_is_refused(lm):
    strange = Lexicon({"dogs": (ids("D AO G Z"),), "eel": (ids("IY L"),)})
    with pytest.raises(ValueError, match=r"lm\.arpa lacks 2 of 2 words: dogs, eel; give an n-gram"):
        Vocabulary(strange, lm).describe()


def test_results_are_in_the_order_of_the_tasks(lm, capsys):
    assert search(LEXICON, lm) == [
        "too much two cats",
        "much",
        "two cats too much",
        "too much",
        *["two cats"] * 2,
    ]
    shown = capsys.readouterr().out
    assert "sentence 6/6" in shown and "frames/s" in shown


@pytest.mark.slow
def test_processes_find_what_one_finds(lm):
    assert search(LEXICON, lm, processes=2) == search(LEXICON, lm)


class _Fatal(Lexicon):
    """Ends the process that receives it."""

    def __reduce__(self):
        return os._exit, (1,)


@pytest.mark.slow
def test_a_process_that_was_ended_is_explained():
    with pytest.raises(MemoryError, match="take fewer --processes"):
        search(_Fatal(LEXICON.words), None, processes=2)
