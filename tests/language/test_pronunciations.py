import json

import pytest

from modessm_jax.data.validation import DataError
from modessm_jax.language.pronunciations import Pronunciations
from modessm_jax.phonemes import SILENCE, symbols
from modessm_jax.text import phoneme_edits, total


@pytest.fixture(scope="module")
def pronunciations() -> Pronunciations:
    return Pronunciations()


def test_sentences_have_silence_after_every_word_and_no_stress(pronunciations):
    ids = pronunciations.ids("The cat, they 'll say")
    assert ids is not None
    assert "".join(symbols(ids.tolist())) == "DHAH | KAET | DHEYL | SEY | "
    assert ids[-1] == SILENCE


def test_hyphenated_words_fall_back_on_their_parts(pronunciations):
    assert pronunciations("dog-cat") == [*pronunciations("dog"), *pronunciations("cat")]
    assert pronunciations("dog-snark") is None


def test_unknown_words_are_listed_once(pronunciations):
    sentences = ["the snark was a boojum", "you see the Snark!"]
    assert pronunciations.unknown(sentences) == ["boojum", "snark"]
    assert pronunciations.ids(sentences[0]) is None


def test_additions_come_first(tmp_path):
    file = tmp_path / "lexicon.txt"
    file.write_text("snark S N AA1 R K\n\nThe DH IY0\n")
    added = Pronunciations(file)
    assert added("snark") == ["S", "N", "AA1", "R", "K"]
    assert added("the") == ["DH", "IY0"]


def test_all_variants_are_known_the_commonest_first(pronunciations, tmp_path):
    assert pronunciations.variants("a") == [["AH0"], ["EY1"]]
    assert pronunciations.variants("a-cat") == [["AH0", "K", "AE1", "T"], ["EY1", "K", "AE1", "T"]]
    assert pronunciations.variants("snark") == pronunciations.variants("a-snark") == []
    file = tmp_path / "lexicon.txt"
    file.write_text("a AH0\nsnark S N AA1 R K\nsnark Z N AA1 R K\n")
    added = Pronunciations(file)
    assert added.variants("a") == [["AH0"]]
    assert [sounds[0] for sounds in added.variants("snark")] == ["S", "Z"]
    assert list(added.added) == ["a", "snark"]


def test_additions_are_read_in_the_form_of_cmudict(tmp_path):
    file = tmp_path / "lexicon.txt"
    file.write_text(
        ";;; comments\n# more\nREAD  R EH1 D\nREAD(2)  R IY1 D # now\n#hash HH AE1 SH\n"
    )
    added = Pronunciations(file)
    assert list(added.added) == ["read", "#hash"]
    assert added.variants("read") == [["R", "EH1", "D"], ["R", "IY1", "D"]]


def test_typographic_apostrophes_are_apostrophes(pronunciations):
    assert pronunciations.unknown(["We\u2019re here\u2014caf\u00e9"]) == []
    assert pronunciations.ids("we\u2019re").tolist() == pronunciations.ids("we're").tolist()
    assert pronunciations.unknown(["bold360"]) == ["bold360"]


@pytest.mark.parametrize(
    ("text", "words"),
    [("cat K AE T\nsnark S N Q K\n", "'Q' is not"), ("a AH\nsnark\n", "there are no phonemes")],
)
def test_malformed_additions_name_the_line(tmp_path, text, words):
    file = tmp_path / "lexicon.txt"
    file.write_text(text)
    with pytest.raises(DataError, match=words) as caught:
        Pronunciations(file)
    assert str(caught.value).startswith(f"{file}, line 2, snark: ")


def test_missing_additions_are_named(tmp_path):
    with pytest.raises(DataError, match=r"gone\.txt: cannot be read"):
        Pronunciations(tmp_path / "gone.txt")


def test_labels_agree_with_the_benchmark(pronunciations, shared_data):
    trials = json.loads((shared_data / "recorded" / "t12_val_phonemes.json").read_text())
    assert pronunciations.unknown(trial["sentence"] for trial in trials) == [
        "cccountability",
        "snark",
    ]
    edits = []
    for trial in trials:
        ids = pronunciations.ids(trial["sentence"])
        if ids is not None:
            edits.append(phoneme_edits(trial["phonemes"], ids))
    assert len(edits) == 878
    # The rest are homographs that g2p_en tells apart, and what it does with a lone apostrophe.
    assert total(edits).rate < 0.003
