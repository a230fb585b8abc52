"""The benchmark of the word search says what it needs before it begins."""

import pytest

from benchmarks.word_search import T12, T15, main, sentences_of


def test_missing_recordings_are_named(tmp_path, monkeypatch):
    (tmp_path / T15).write_text("[]")
    given = ["--lm", "lm", "--lexicon", "lexicon", "--recorded", str(tmp_path)]
    monkeypatch.setattr("sys.argv", ["word_search", *given])
    with pytest.raises(SystemExit, match=f"lacks {T12}; give another --recorded"):
        main()


def test_recorded_sentences_are_read(shared_data):
    assert len(sentences_of(shared_data / "recorded" / T15)) == 1426
