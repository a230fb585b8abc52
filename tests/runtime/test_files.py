"""A file is the old one or the new one, never a half."""

import pytest

from modessm_jax.runtime.files import replacing, write_text


def test_a_new_file_takes_the_place_of_the_old_one_at_the_end(tmp_path):
    path = tmp_path / "new folder" / "a.txt"
    write_text(path, "old ä")
    with replacing(path) as partial:
        partial.write_text("new")
        assert path.read_text(encoding="utf-8") == "old ä"
    assert path.read_text() == "new"
    assert [left.name for left in path.parent.iterdir()] == ["a.txt"]


def test_an_error_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with pytest.raises(ZeroDivisionError), replacing(path) as partial:
        partial.write_text("half")
        raise ZeroDivisionError
    assert path.read_text() == "old"
    write_text(path, "new")
    assert [left.name for left in tmp_path.iterdir()] == ["a.txt"]
