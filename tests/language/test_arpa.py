"""What is written is read by KenLM."""

import math

import numpy as np
import pytest

from modessm_jax.language.arpa import BackoffModel, NGrams
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


def test_kenlm_reads_what_is_written(tmp_path):
    file = tmp_path / "small.arpa"
    model().write(file)
    ngram = NGram(file)
    assert model().sizes == [5, 2] and ngram.order == 2
    assert ngram.score(["i", "see"]) == pytest.approx(math.log(0.6 * 0.85 * 0.3), abs=1e-5)
    # Back-offs: <s> 0.5, i 0.25.
    assert ngram.score(["see"]) == pytest.approx(math.log(0.5 * 0.2 * 0.3), abs=1e-5)
    assert ngram.score(["i", "i"]) == pytest.approx(
        math.log(0.6 * 0.25 * 0.4 * 0.25 * 0.3), abs=1e-5
    )
    assert ngram.words() == ["i", "see"]
    assert list(file.parent.iterdir()) == [file]  # nothing partial is left
