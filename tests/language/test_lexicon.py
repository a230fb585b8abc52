"""Every sentence walks the tree, and nothing else does."""

import pickle

import numpy as np
import pytest

from modessm_jax.data.validation import DataError
from modessm_jax.language.lexicon import (
    BETWEEN,
    NO_WORD,
    START,
    Lexicon,
    PronunciationTree,
    build_lexicon,
    grow,
)
from modessm_jax.phonemes import SILENCE, symbols


def spoken(lexicon: Lexicon, word: str) -> list[str]:
    return [" ".join(symbols(ids)) for ids in lexicon.words[word]]


def test_all_pronunciations_are_kept_once_without_stress_or_silence():
    lexicon = build_lexicon(["the", "record", "the"])
    assert list(lexicon.words) == ["the", "record"]
    assert spoken(lexicon, "the") == ["DH AH", "DH IY"]  # the dictionary also stresses AH
    assert spoken(lexicon, "record") == ["R AH K AO R D", "R EH K ER D", "R IH K AO R D"]
    assert not lexicon.guessed


def test_every_homophone_is_kept():
    words = ["sees", "seas", "seize", "c's", "cees", "seese", "sease", "sieze"]
    same = {word: [["S", "IY1", "Z"]] for word in words}
    lexicon = build_lexicon(words, guess=lambda unknown: {word: same[word] for word in unknown})
    assert [spoken(lexicon, word) for word in words] == [["S IY Z"]] * len(words)


def test_hyphenated_words_join_all_pronunciations_of_their_parts():
    lexicon = build_lexicon(["the-cat"])
    assert spoken(lexicon, "the-cat") == ["DH AH K AE T", "DH IY K AE T"]


def test_additions_are_added_and_stand_in_place_of_the_dictionary(tmp_path):
    file = tmp_path / "own.txt"
    file.write_text("snark S N AA1 R K\nsnark SH N AA1 R K\nthe DH UW0\n")
    lexicon = build_lexicon(["the", "cat"], additions=file)
    assert list(lexicon.words) == ["the", "cat", "snark"]
    assert spoken(lexicon, "the") == ["DH UW"]
    assert spoken(lexicon, "snark") == ["S N AA R K", "SH N AA R K"]
    file.write_text("snark S N Q K\n")
    with pytest.raises(DataError, match="line 1, snark"):
        build_lexicon(["the"], additions=file)


def test_unknown_words_are_guessed_and_named():
    guessed = []

    def guess(words):
        guessed.extend(words)
        return {"boojum": [["B", "UW1", "JH", "AH0", "M"]]}

    lexicon = build_lexicon(["cat", "boojum"], guess=guess)
    assert guessed == ["boojum"] and lexicon.guessed == {"boojum"}
    assert spoken(lexicon, "boojum") == ["B UW JH AH M"]
    with pytest.raises(ValueError, match="no pronunciation for 1 words: snrk; write"):
        build_lexicon(["snrk", "boojum"], guess=guess)
    with pytest.raises(ValueError, match="for 2 words: boojum, snrk; write"):
        build_lexicon(["boojum", "snrk"])


def test_unknown_possessives_end_as_english_asks():
    lexicon = build_lexicon(["wish's", "desk-top's", "the's"])
    assert spoken(lexicon, "wish's") == ["W IH SH IH Z"]
    assert spoken(lexicon, "desk-top's") == ["D EH S K T AA P S", "D EH S K T AO P S"]
    assert spoken(lexicon, "the's") == ["DH AH Z", "DH IY Z"]
    assert lexicon.guessed == {"wish's", "desk-top's", "the's"}
    with pytest.raises(ValueError, match="for 1 words: boojum's"):
        build_lexicon(["boojum's"])


def test_a_lexicon_is_read_as_it_was_written(tmp_path):
    lexicon = build_lexicon(["the", "a", "boojum"], guess=lambda _: {"boojum": [["B", "UW"]]})
    lexicon.write(tmp_path / "words.lexicon")
    assert (tmp_path / "words.lexicon").read_text() == (
        "# lexicon 1\nthe\tDH AH\nthe\tDH IY\na\tAH\na\tEY\nboojum\tB UW\t# guessed\n"
    )
    read = Lexicon.read(tmp_path / "words.lexicon")
    assert read == lexicon and list(read.words) == list(lexicon.words)
    assert pickle.loads(pickle.dumps(read)) == lexicon  # what parallel searches are sent


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is empty, not a lexicon"),
        ("\\data\\\nngram 1=1\n", "is an ARPA n-gram, not a lexicon; make one"),
        ("# lexicon 1\n\n", "the lexicon has no words"),
        ("# lexicon 2\nthe\tDH AH\n", "'# lexicon 2', not '# lexicon 1'"),
        ("# lexicon 1\nthe\tDH AH\n\nthe DH IY\n", "line 4: write word<tab>phonemes"),
        ("# lexicon 1\nthe\tDH AH\tsure\n", "line 2: write word<tab>phonemes"),
        ("# lexicon 1\nthe\tDH Q\n", "line 2, the: 'Q' is not an ARPAbet"),
        ("# lexicon 1\nthe\tDH |\n", "line 2, the: '|' is not an ARPAbet"),
        ("# lexicon 1\na\tAH\nthe \tDH AH\n", "line 3, the : 'the ' is no word"),
        ("# lexicon 1\na\tAH\nthe\t \n", "line 3, the: a pronunciation of 'the' is missing"),
    ],
)
def test_malformed_files_are_named(tmp_path, text, words):
    file = tmp_path / "words.lexicon"
    file.write_text(text)
    with pytest.raises(ValueError, match=words.replace("|", r"\|")) as caught:
        Lexicon.read(file)
    assert str(caught.value).startswith(str(file))
    with pytest.raises(ValueError, match="cannot be read as a lexicon"):
        Lexicon.read(tmp_path / "gone")


def test_words_are_in_lower_case_wherever_they_come_from(tmp_path):
    assert list(build_lexicon(["THE", "Cat", "the"]).words) == ["the", "cat"]
    (tmp_path / "own.lexicon").write_text("# lexicon 1\nTHE\tDH AH\nthe\tDH IY\n")
    assert spoken(Lexicon.read(tmp_path / "own.lexicon"), "the") == ["DH AH", "DH IY"]


def test_lines_added_by_hand_may_be_those_of_cmudict(tmp_path):
    (tmp_path / "own.lexicon").write_text(
        "# lexicon 1\n;;; mine\nread\tR EH1 D  # past\nread(2)\tR IY1 D\nso\tS OW\t# guessed\n"
    )
    lexicon = Lexicon.read(tmp_path / "own.lexicon")
    assert spoken(lexicon, "read") == ["R EH D", "R IY D"]
    assert list(lexicon.words) == ["read", "so"] and lexicon.guessed == {"so"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({}, "the lexicon has no words"),
        ({"": ((1,),)}, "is no word"),
        ({"two words": ((1,),)}, "is no word"),
        ({"The": ((1,),)}, "has capitals"),
        ({"the(2)": ((1,),)}, "is a variant"),
        ({";;;the": ((1,),)}, "a comment"),
        ({"cat": ()}, "is missing"),
        ({"cat": ((1,), ())}, "is missing"),
        ({"cat": ((1, 40),)}, r"1\.\.39"),
        ({"cat": ((0,),)}, r"1\.\.39"),
    ],
)
def test_what_is_no_pronunciation_is_refused(words, message):
    with pytest.raises(ValueError, match=message):
        Lexicon(words)


LEXICON = Lexicon({"a": ((3,), (3, 5)), "b": ((3, 5),), "c": ((7,), (7,))})
SCORES = {"a": -3.0, "b": -1.0, "c": -2.0}


def arcs(tree: PronunciationTree, node: int) -> list[tuple[int, int, int]]:
    """Label, target and word of those that leave a node."""
    own = slice(tree.first[node], tree.first[node + 1])
    fields = (field[own].tolist() for field in (tree.label, tree.target, tree.word))
    return list(zip(*fields, strict=True))


def test_words_share_their_beginnings_and_end_with_a_silence_each():
    tree = grow(LEXICON, SCORES.__getitem__)
    (three, inner, _), (seven, other, _) = arcs(tree, BETWEEN)
    assert (three, seven) == (3, 7)
    assert arcs(tree, START) == [(SILENCE, BETWEEN, NO_WORD), *arcs(tree, BETWEEN)]
    (five, last, word), end = arcs(tree, inner)
    assert (five, word) == (5, NO_WORD) and end == (SILENCE, BETWEEN, 0)
    assert arcs(tree, last) == [(SILENCE, BETWEEN, 0), (SILENCE, BETWEEN, 1)]
    assert arcs(tree, other) == [(SILENCE, BETWEEN, 2)]  # the same pronunciation twice is one
    assert [tree.words(node) for node in (START, BETWEEN, inner, last)] == [[], [], [0], [0, 1]]


def test_a_node_looks_ahead_to_the_likeliest_word_beneath_it():
    tree = grow(LEXICON, SCORES.__getitem__)
    inner, other = (target for _, target, _ in arcs(tree, BETWEEN))
    np.testing.assert_array_equal(tree.ahead[[START, BETWEEN, inner, other]], [0, 0, -1, -2])
