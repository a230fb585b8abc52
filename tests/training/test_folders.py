import shutil

import pytest

from modessm_jax.training.folders import (
    damaged_in,
    publish,
    remove,
    set_aside,
    steps_in,
    tidy,
)


class Killed(BaseException):
    pass


def make(folder):
    folder.mkdir()
    for name in ("a", "b"):
        (folder / name).write_text(folder.name)
    return folder


def names(place):
    return sorted(path.name for path in place.iterdir())


def test_only_whole_folders_have_a_step(tmp_path):
    for name in ("10", "9", "8.partial", "7.former", "6.removed", "5.damaged", "4.damaged-2"):
        make(tmp_path / name)
    assert steps_in(tmp_path) == [9, 10]
    assert [folder.name for folder in damaged_in(tmp_path)] == ["4.damaged-2", "5.damaged"]


def test_one_that_is_published_replaces_that_of_the_same_step(tmp_path):
    make(tmp_path / "4")
    publish(make(tmp_path / "4.partial"))
    publish(make(tmp_path / "6.partial"))
    assert names(tmp_path) == ["4", "6"]
    assert (tmp_path / "4" / "a").read_text() == "4.partial"


def test_one_set_aside_takes_a_name_that_is_free(tmp_path):
    taken = [set_aside(make(tmp_path / "4")).name for _ in range(3)]
    assert taken == ["4.damaged", "4.damaged-2", "4.damaged-3"]


def test_a_death_in_the_middle_of_removing_leaves_no_half(tmp_path, monkeypatch, capsys):
    def dies_half_way(path):
        (path / "a").unlink()
        raise Killed

    make(tmp_path / "4")
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(shutil, "rmtree", dies_half_way)
        remove(tmp_path / "4")
    assert steps_in(tmp_path) == []
    tidy(tmp_path)
    assert names(tmp_path) == [] and capsys.readouterr().out == ""


def test_clearing_up_gives_back_what_was_to_be_replaced(tmp_path, capsys):
    for name in ("4", "4.former", "6.former", "8.partial", "2.damaged"):
        make(tmp_path / name)
    tidy(tmp_path)
    assert names(tmp_path) == ["2.damaged", "4", "6"]
    assert (tmp_path / "6" / "a").read_text() == "6.former"
    assert "8.partial was never completed; removed" in capsys.readouterr().out
