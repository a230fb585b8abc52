import json

import pytest

from modessm_jax.data.validation import DataError
from modessm_jax.words.nbest import (
    Candidate,
    Utterance,
    read_nbest,
    read_texts,
    write_nbest,
    write_texts,
)

FOUND = [
    Utterance(
        "t15.2023.08.13",
        5,
        3,
        (Candidate("i can't", -10.25, -3.5, -12.0), Candidate("icon", -9.0, -9.0, -15.0)),
    ),
    Utterance("t15.2023.08.13", 5, 2, (Candidate("caf\u00e9\u2028", 0.0, -1.0, -1.0),)),
    Utterance("t15.2023.08.11", 1, 0, ()),
]


def line(**changes) -> dict:
    fields = {"session": "s", "block_num": 1, "trial_num": 2}
    candidate = {"text": "so", "acoustic": -1.0, "lm": -2, "total": -3.0}
    return {**fields, "candidates": [candidate], **changes}


def write(path, *lines) -> None:
    path.write_text("".join(json.dumps(each) + "\n" for each in lines))


def test_lists_come_back_as_they_were_in_their_order(tmp_path):
    write_nbest(tmp_path / "new" / "val.jsonl", iter(FOUND))
    assert read_nbest(tmp_path / "new" / "val.jsonl") == FOUND
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["val.jsonl"]
    assert FOUND[0].key == ("t15.2023.08.13", 5, 3)


def test_the_sentences_of_a_list_are_the_best_ones(tmp_path):
    write_nbest(tmp_path / "val.jsonl", FOUND)
    texts = read_texts(tmp_path / "val.jsonl")
    assert texts == {found.key: found.text for found in FOUND}
    assert list(texts.values()) == ["i can't", "caf\u00e9\u2028", ""]
    write_texts(tmp_path / "texts.jsonl", texts)
    assert read_texts(tmp_path / "texts.jsonl") == texts


def test_a_doubled_trial_is_an_error_in_writing_and_reading(tmp_path):
    with pytest.raises(DataError, match="line 2: is s/block 1/trial 2, and so is line 1"):
        write_nbest(tmp_path / "x.jsonl", [Utterance("s", 1, 2, ())] * 2)
    assert not (tmp_path / "x.jsonl").exists()
    write(tmp_path / "y.jsonl", line(), line(trial_num=3), line(candidates=[]))
    with pytest.raises(DataError, match=r"y\.jsonl, line 3: is s/block 1/trial 2, and so is line"):
        read_nbest(tmp_path / "y.jsonl")


def test_what_json_cannot_say_is_not_written(tmp_path):
    with pytest.raises(DataError, match=r"line 1, candidates\[0\]\.lm: is -inf, not a finite"):
        write_nbest(
            tmp_path / "x.jsonl",
            [Utterance("s", 1, 2, (Candidate("so", 0.0, float("-inf"), 0.0),))],
        )


@pytest.mark.parametrize(
    ("spoilt", "words"),
    [
        ({"session": 3}, "line 2, session: is 3, not text"),
        ({"block_num": True}, "line 2, block_num: is True, not a whole number"),
        ({"trial_num": 1.5}, "line 2, trial_num: is 1.5, not a whole number"),
        ({"candidates": "so"}, "line 2, candidates: is 'so', not a list"),
        ({"candidates": ["so"]}, r"line 2, candidates\[0\]: is 'so', without a text"),
        (
            {"candidates": [{"text": "so", "acoustic": 0, "lm": True, "total": 0}]},
            r"line 2, candidates\[0\]\.lm: is True, not a finite number",
        ),
        (
            {"candidates": [{"text": "so", "acoustic": 0, "lm": 0, "total": t} for t in (1, 2)]},
            r"line 2, candidates\[1\]\.total: is 2\.0, above that of the one before: not best",
        ),
    ],
)
def test_a_malformed_line_is_named(tmp_path, spoilt, words):
    write(tmp_path / "x.jsonl", line(), line(trial_num=3) | spoilt)
    with pytest.raises(DataError, match=words):
        read_nbest(tmp_path / "x.jsonl")


def test_a_file_of_something_else_is_named(tmp_path):
    path = tmp_path / "x.jsonl"
    for content, words in (
        (b"", "holds no trials"),
        (b"[1]\n", "line 1: is not a JSON object"),
        (b'{"session": "s"\n', "line 1: is not JSON"),
        (b"\xff\xfe", "cannot be read"),
    ):
        path.write_bytes(content)
        with pytest.raises(DataError, match=words):
            read_texts(path)
    write(path, {"session": "s", "block_num": 1, "trial_num": 2})
    with pytest.raises(DataError, match="line 1, text: is None, not text"):
        read_texts(path)
    with pytest.raises(DataError, match=r"nowhere\.jsonl: cannot be read"):
        read_nbest(tmp_path / "nowhere.jsonl")
