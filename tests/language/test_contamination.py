from modessm_jax.language.contamination import seen_sentences

TEXT = [
    "Well, I do not KNOW what you mean.",
    "yes",
    "going to",
    "the store",
    "",
]


def test_sentences_are_found_within_lines_and_in_any_dress():
    sentences = {
        "i do not know": True,
        "I do not know what you mean!": True,
        "Yes.": True,
        "know": True,  # a single word, inside
        "do not know you": False,
        "not know what you mean it": False,  # beyond the end of the line
        "going to the store": False,  # over two lines
        "no": False,  # part of a word only
        "!": False,
    }
    assert seen_sentences(list(sentences), TEXT) == list(sentences.values())


def test_equal_sentences_are_seen_alike():
    assert seen_sentences(["yes", "no", "yes"], iter(TEXT)) == [True, False, True]
    assert seen_sentences([], TEXT) == []
    assert seen_sentences(["yes"], []) == [False]
