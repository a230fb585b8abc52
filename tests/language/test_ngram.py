"""Scores and perplexity of an n-gram, by hand; which files are read, and how words are spelt."""

import gzip
import math

import pytest

from modessm_jax.language.arpa import MISSING
from modessm_jax.language.ngram import NGram
from tests.language.arpa_fuzz import fuzz

# log10: a -0.5, b -1.0, </s> -0.75; b after a -0.25; back-off of a -0.125.
ARPA = """\\data\\
ngram 1={size}
ngram 2=1

\\1-grams:
-99\t<s>\t0
-0.75\t</s>
-0.5\ta\t-0.125
-1\tb
{unknown}
\\2-grams:
-0.25\ta b

\\end\\
"""


@pytest.fixture
def ngram(tmp_path) -> NGram:
    (tmp_path / "lm.arpa").write_text(ARPA.format(size=4, unknown=""))
    return NGram(str(tmp_path / "lm.arpa"))


@pytest.fixture
def with_unknown(tmp_path) -> NGram:
    (tmp_path / "unk.arpa").write_text(ARPA.format(size=5, unknown="-3\t<unk>\n"))
    return NGram(tmp_path / "unk.arpa")


def nats(*common: float) -> float:
    return sum(common) * math.log(10)


def test_scores_are_natural_logarithms(ngram):
    assert ngram.order == 2
    assert ngram.alone("b") == pytest.approx(nats(-1))
    assert ngram.score(["a", "b"]) == pytest.approx(nats(-0.5, -0.25, -0.75))
    assert ngram.score(["a", "a"]) == pytest.approx(nats(-0.5, -0.125, -0.5, -0.125, -0.75))
    assert ngram.score([]) == pytest.approx(nats(-0.75))
    assert ngram.word_scores(["a", "b"]) == pytest.approx([nats(-0.5), nats(-0.25), nats(-0.75)])


def test_states_are_values(ngram):
    start = ngram.start()
    state, score = ngram.extend(start, "a")
    assert score == pytest.approx(nats(-0.5))
    again, _ = ngram.extend(start, "a")
    assert state == again and hash(state) == hash(again) and state != start
    assert ngram.extend(state, "b")[1] == pytest.approx(nats(-0.25))
    assert ngram.end(state) == pytest.approx(nats(-0.125, -0.75))


def test_unknown_words(ngram, with_unknown):
    assert "a" in ngram and "c" not in ngram and "c" not in with_unknown
    # Next to the back-off of a, the model's own unknown word or else one in ten million.
    state, _ = with_unknown.extend(with_unknown.start(), "a")
    assert with_unknown.extend(state, "c")[1] == pytest.approx(nats(-0.125, -3))
    state, _ = ngram.extend(ngram.start(), "a")
    assert ngram.extend(state, "c")[1] == pytest.approx(nats(-0.125) + MISSING, abs=1e-4)
    # Known words are not charged for it.
    assert with_unknown.score(["a", "b"]) == ngram.score(["a", "b"])


def test_perplexity(ngram):
    measured = ngram.perplexity([["a", "b"], ["c"]])
    assert (measured.sentences, measured.words, measured.unknown) == (2, 3, 1)
    known = nats(-0.5, -0.25, -0.75, -0.75)
    assert measured.known_words == pytest.approx(math.exp(-known / 4))
    assert measured.all_words == pytest.approx(math.exp(-(known + MISSING) / 5), rel=1e-4)
    with pytest.raises(ValueError, match="at least one sentence"):
        ngram.perplexity([])


def test_500_fuzzed_files_are_loaded_or_refused_as_by_kenlm(tmp_path):
    found = fuzz(500, tmp_path)
    assert found["loaded"].total() > 150 and found["refused"].total() > 150


SOUND = ARPA.format(size=5, unknown="-3\t<unk>\n")


@pytest.mark.parametrize(
    ("old", "new", "line", "rule"),
    [
        ("1=5", "1=6", 12, "Could not parse .*2-grams.* into a float"),
        ("1=5", "1=five", 2, "Bad count five"),
        ("1=5", "1=-5", 2, "-5 n-grams are promised"),  # KenLM crashes
        ("1=5", "1=99999999", 2, "99,999,999 n-grams are promised, but the file can hold"),
        ("2=1", "2=0", 13, "but the ARPA file has -0.25"),
        ("-0.25\ta b", "-0.25\ta c", 13, "Word c was not seen in the unigrams"),
        ("-0.25\ta b", "-0.25\ta b\t-0.5", 13, "should have no backoff"),
        ("-0.25\ta", "0.25\ta", 13, "Positive log probability 0.25"),
        ("-0.25\ta", "minus\ta", 13, 'Could not parse "minus" into a float'),
        ("-0.5\ta", "-0.5 a", 8, "Expected tab after probability"),
        ("\\2-grams:", "\\3-grams:", 12, "Was expecting n-gram header"),
        ("-99\t<s>", "-99\tc", 10, "missing <s>"),
        ("\\end\\\n", "", 14, "End of file"),
        ("ngram 2=1\n", "", 3, "at least a bigram model"),
        ("\tb\n", "\tb\0\n", 13, "Word b was not seen"),
    ],
)
def test_what_is_wrong_with_a_model_is_told_by_line(tmp_path, old, new, line, rule):
    assert SOUND.count(old) == 1
    (tmp_path / "lm.arpa").write_text(SOUND.replace(old, new))
    with pytest.raises(ValueError, match=rf"lm\.arpa, line {line}: .*{rule}"):
        NGram(tmp_path / "lm.arpa")


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "it is empty"),
        (b"once upon a time\n", "it is neither an ARPA file nor a KenLM binary"),
        (b"PK\x03\x04", "it is a zip archive"),
        (b"\xfd7zXZ\0", "it is a compressed archive"),
        (b"<!DOCTYPE html>\n<html>", "it is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "it is a Git LFS pointer"),
        (b"# lexicon 1\nso\tS OW\n", "it is a lexicon"),
        (gzip.compress(SOUND.encode(), mtime=0)[:60], "cannot be unpacked"),
    ],
)
def test_what_is_no_model_is_named(tmp_path, data, told):
    (tmp_path / "lm.arpa").write_bytes(data)
    with pytest.raises(ValueError, match=rf"lm\.arpa.*{told}"):
        NGram(tmp_path / "lm.arpa")
    with pytest.raises(ValueError, match="no such file"):
        NGram(tmp_path / "gone.arpa")


def test_a_gzipped_model_is_the_model(tmp_path, with_unknown):
    packed = tmp_path / "packed.bin"
    packed.write_bytes(gzip.compress(SOUND.encode()))
    ngram = NGram(packed)
    assert ngram.words() == with_unknown.words() == ["a", "b"]
    assert ngram.score(["a", "b", "c"]) == with_unknown.score(["a", "b", "c"])
    unpacked = ngram.file
    assert unpacked.exists()
    del ngram
    assert not unpacked.exists()


@pytest.mark.parametrize("form", [str.lower, str.capitalize, str.upper])
def test_words_are_known_however_the_model_spells_them(tmp_path, form):
    arpa = SOUND.replace("\ta", "\t" + form("the")).replace("b", form("cat"))
    arpa = arpa.replace("ngram 1=5", "ngram 1=6").replace("-3\t", "-2\tus\n-3\t")
    (tmp_path / "lm.arpa").write_text(arpa)
    ngram = NGram(tmp_path / "lm.arpa")
    for given in (str.lower, str.upper):
        assert ngram.score([given("the"), given("cat")]) == pytest.approx(nats(-0.5, -0.25, -0.75))
    assert ngram.spelling("the") == form("the") and "the" in ngram and "then" not in ngram
    assert ngram.lacking(["the", "cat"]) == []
    assert ngram.perplexity([["the", "cat"]]).unknown == 0


def test_words_that_a_model_lacks_are_loud(ngram, caplog):
    known = ["a", "b"] * 20
    assert ngram.lacking([*known, "c"]) == ["c"] and not caplog.records
    assert ngram.lacking([*known, "c", "d", "e"]) == ["c", "d", "e"]
    assert "6.98 % are unknown to the n-gram" in caplog.text and "c, d, e" in caplog.text
    with pytest.raises(ValueError, match=r"lm\.arpa lacks 3 of 3 words: c, d, e; give an n-gram"):
        ngram.lacking(["c", "d", "e"])
