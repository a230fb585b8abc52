"""Sentences and corrections are on disk at once, and a file of them is gone on with."""

import json
import os

import pytest

from modessm_jax.live.sentences import LONGEST, SHOWN


def lines(path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "new" / "live.jsonl"


def test_what_is_added_is_in_the_file_before_the_call_returns(opened, path):
    sentences = opened(path)
    first = sentences.add({"text": "hello"})
    assert lines(path) == [first] and first["id"] == 1
    second = sentences.add({"text": "there"})
    correction = sentences.correct(1, "  hollow \n man ")
    assert lines(path) == [first, second, correction]
    assert correction["corrects"] == 1 and correction["text"] == "hollow man"
    assert sentences.shown() == [first | {"corrected": "hollow man"}, second]


def test_the_file_is_gone_on_with(opened, path):
    sentences = opened(path)
    sentences.add({"text": "hello"})
    sentences.correct(1, "hallo")
    sentences.__exit__()
    again = opened(path)
    assert [one["corrected"] for one in again.shown()] == ["hallo"]
    assert again.add({"text": "more"})["id"] == 2


def test_what_was_learned_from_a_sentence_is_no_sentence(opened, path):
    sentences = opened(path)
    first = sentences.add({"text": "hello"})
    learned = sentences.add_learned(1, {"loss": 0.5})
    assert lines(path) == [first, learned] and learned["learned_from"] == 1
    sentences.__exit__()
    again = opened(path)
    assert again.shown() == [first] and again.add({"text": "more"})["id"] == 2


def test_a_line_half_written_is_cut_off(opened, path):
    sentences = opened(path)
    kept = sentences.add({"text": "hello"})
    sentences.__exit__()
    with path.open("ab") as file:
        file.write(b'{"id": 2, "text": "hel')
    again = opened(path)
    assert lines(path) == [kept] == again.shown()
    assert again.add({"text": "more"})["id"] == 2


def test_a_line_that_is_no_sentence_is_refused(opened, path):
    path.parent.mkdir()
    path.write_text('{"id": 1, "text": "a"}\n{"id": "x"}\n')
    with pytest.raises(ValueError, match=r"live\.jsonl, line 2: no sentence .* --out"):
        opened(path)


def test_two_processes_do_not_write_one_file(opened, path):
    sentences = opened(path)
    with pytest.raises(ValueError, match="is in use by another process"):
        opened(path)
    sentences.__exit__()
    opened(path)


@pytest.mark.parametrize(
    ("number", "text", "message"),
    [
        (2, "b", "no sentence 2"),
        (0, "b", "no sentence 0"),
        (1, " ", "not 0"),
        (1, "b" * (LONGEST + 1), "1 to 1000 characters"),
    ],
)
def test_corrections_of_nothing_or_too_long_are_refused(opened, path, number, text, message):
    sentences = opened(path)
    written = sentences.add({"text": "a"})
    with pytest.raises(ValueError, match=message):
        sentences.correct(number, text)
    assert lines(path) == [written]


def test_the_last_are_shown_and_all_can_be_corrected(opened, path, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda file: None)
    sentences = opened(path)
    for number in range(SHOWN + 5):
        sentences.add({"text": str(number)})
    assert [one["id"] for one in sentences.shown()] == [*range(6, SHOWN + 6)]
    sentences.correct(1, "nought")
    assert lines(path)[-1]["corrects"] == 1


def test_a_line_that_cannot_be_written_leaves_the_file_as_it_was(opened, path, monkeypatch):
    sentences = opened(path)
    kept = sentences.add({"text": "a"})

    def full(file):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space"):
            sentences.add({"text": "b"})
    assert lines(path) == [kept] == sentences.shown()
    assert sentences.add({"text": "c"})["id"] == 2
