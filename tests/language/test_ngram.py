"""Scores and perplexity of an n-gram, by hand."""

import math

import pytest

from modessm_jax.language.arpa import MISSING
from modessm_jax.language.ngram import NGram

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
