"""The phoneme n-gram's table and its fusion say what KenLM says."""

import jax.numpy as jnp
import numpy as np
import pytest

from modessm_jax.language.kneser_ney import train
from modessm_jax.language.lexicon import build_lexicon
from modessm_jax.language.ngram import NGram
from modessm_jax.language.phoneme_ngram import TOKENS, phoneme_fusion, phonemes_of
from modessm_jax.phonemes import SILENCE, phoneme_id

SENTENCES = ["The cat sat.", "the dog", "snark the cat", "", "a cat sat"]


def spoken_sentences() -> list[list[str]]:
    return list(phonemes_of(SENTENCES, build_lexicon(["the", "cat", "sat", "dog", "a"])))


def test_sentences_of_known_words_are_spoken():
    sounds = spoken_sentences()
    assert len(sounds) == 4  # not that of the snark
    assert " ".join(sounds[0]) == "DH AH | K AE T | S AE T |"
    assert sounds[2] == []


@pytest.fixture(scope="module", params=[2, 3])
def ngram(request, tmp_path_factory) -> NGram:
    path = tmp_path_factory.mktemp("lm") / "phonemes.arpa"
    train(spoken_sentences(), request.param).write(path)
    return NGram(path)


def test_fusion_scores_every_phoneme_as_the_ngram(ngram):
    fusion = phoneme_fusion(ngram, weight=0.3)
    assert fusion.weight == 0.3
    said = [[phoneme_id("K"), phoneme_id("AE"), phoneme_id("T")], [phoneme_id("DH"), 2, SILENCE]]
    state = fusion.start(2)
    states = [ngram.start(), ngram.start()]
    for labels in [*zip(*said, strict=True), None]:
        scores = np.asarray(fusion.score(state))
        expected = [[ngram.extend(s, token)[1] for token in TOKENS[1:]] for s in states]
        np.testing.assert_allclose(scores[:, 1:], expected, rtol=1e-5)
        if labels is not None:
            state = fusion.advance(state, jnp.asarray(labels, jnp.int32))
            states = [ngram.extend(s, TOKENS[i])[0] for s, i in zip(states, labels, strict=True)]


@pytest.mark.parametrize("words", [["cat", "sat"], ["OW", "THE", "UH", "ER", "AH"]])
def test_an_ngram_of_words_is_refused(tmp_path, words):
    train([words], 2).write(tmp_path / "words.arpa")
    with pytest.raises(ValueError, match=r"must be an n-gram of phonemes.* lacks AA, .*, \|"):
        phoneme_fusion(NGram(tmp_path / "words.arpa"), 1.0)
