"""What is written is read by KenLM, and mistakes in files are found by line."""

import math

import numpy as np
import pytest

from modessm_jax.language.arpa import BackoffModel, NGrams, check, vocabulary
from modessm_jax.language.ngram import NGram

WORDS = ("<unk>", "<s>", "</s>", "i", "see")


def model() -> BackoffModel:
    unigrams = NGrams(
        np.arange(5, dtype=np.int32)[:, None],
        np.array([math.log(0.1), -np.inf, math.log(0.3), math.log(0.4), math.log(0.2)]),
        np.array([0.0, math.log(0.5), 0.0, math.log(0.25), 0.0]),
    )
    bigrams = NGrams(
        np.array([[1, 3], [3, 4]], np.int32), np.log(np.array([0.6, 0.85])), np.zeros(2)
    )
    return BackoffModel(WORDS, (unigrams, bigrams))


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "small.arpa"
    model().write(path)
    return path


def test_kenlm_reads_what_is_written(file):
    ngram = NGram(file)
    assert model().sizes == [5, 2] and ngram.order == 2
    assert ngram.score(["i", "see"]) == pytest.approx(math.log(0.6 * 0.85 * 0.3), abs=1e-5)
    # Back-offs: <s> 0.5, i 0.25.
    assert ngram.score(["see"]) == pytest.approx(math.log(0.5 * 0.2 * 0.3), abs=1e-5)
    assert ngram.score(["i", "i"]) == pytest.approx(
        math.log(0.6 * 0.25 * 0.4 * 0.25 * 0.3), abs=1e-5
    )
    assert list(file.parent.iterdir()) == [file]  # nothing partial is left


def test_the_vocabulary(file):
    assert vocabulary(file) == ["i", "see"]
    check(file)


@pytest.mark.parametrize(
    ("old", "new", "line", "words"),
    [
        ("ngram 2=2", "ngram 2=3", 16, "2 2-grams where 3 are promised"),
        ("ngram 2=2", "ngram 2=two", 3, "invalid literal"),
        ("\ti see", "\ti sea", 14, "'sea' is not among the 1-grams"),
        ("\ti see", "\tsee", 14, "a 2-gram needs a log-probability, 2 words"),
        ("-0.397940\ti\t", "0.397940\ti\t", 9, "is above 0"),
        ("-0.397940\ti\t", "minus\ti\t", 9, "could not convert"),
        ("\\2-grams:", "\\3-grams:", 12, r"\\3-grams: comes unexpectedly"),
    ],
)
def test_mistakes_are_named_by_line(file, old, new, line, words):
    text = file.read_text()
    assert text.count(old) == 1
    file.write_text(text.replace(old, new))
    with pytest.raises(ValueError, match=words) as caught:
        NGram(file)
    assert str(caught.value).startswith(f"{file}, line {line}: ")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", r"0 lines without \\data\\"),
        ("once upon a time\n", r"1 lines without \\data\\"),
        ("\\data\\\nngram 1=1\n\n\\1-grams:\n-1\ta\n", r"5 lines without \\end\\"),
        ("\\data\\\nngram 1=1\nngram 2=1\n\n\\1-grams:\n-1\ta\n\\end\\\n", "2-grams are missing"),
    ],
)
def test_what_is_no_whole_model_is_refused(tmp_path, text, words):
    (tmp_path / "lm.arpa").write_text(text)
    with pytest.raises(ValueError, match=words):
        NGram(tmp_path / "lm.arpa")
    with pytest.raises(ValueError, match="no such file"):
        NGram(tmp_path / "gone.arpa")
