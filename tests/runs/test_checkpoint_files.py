"""Checkpoints as folders: damage is found, names are published whole, contents fit the model."""

import json
import os
import shutil
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from grain._src.core import sharding

from modessm_jax.runs.checkpoint_files import (
    DamagedError,
    damaged_in,
    publish,
    read_manifest,
    remove,
    seal,
    set_aside,
    steps_in,
    tidy,
    verify,
)
from modessm_jax.runs.checkpoints import CheckpointError, Checkpoints, load_weights
from modessm_jax.runs.history import History
from modessm_jax.runs.state import create_state, evaluation_params
from modessm_jax.runtime.mesh import data_mesh
from tests.runs.test_checkpoints import (
    assert_equal_trees,
    numbers,
    restore,
    save_three,
    state_at,
)
from tests.toy import initial_params

FACTS = {"step": 6, "best": {"step": 4, "per": 0.3}}
FILES = {
    "weights/d/0": bytes(range(256)) * 3,
    "weights/_METADATA": b'{"shape": [8, 41]}',
    "data/process_0": b"9",
    "history/empty": b"",
}


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "6"
    for name, content in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    seal(folder, FACTS)
    return folder


def test_what_is_whole_is_told_and_its_facts_with_it(folder):
    assert verify(folder) == FACTS
    files = read_manifest(folder)["files"]
    assert {name: file["bytes"] for name, file in files.items()} == {
        name: len(content) for name, content in FILES.items()
    }
    # A copy is as good, wherever it is.
    assert verify(folder.rename(folder.with_name("moved"))) == FACTS


@pytest.mark.parametrize("name", [name for name in FILES if FILES[name]])
def test_every_flipped_bit_is_found(folder, name):
    file = folder / name
    whole = file.read_bytes()
    for bit in range(0, 8 * len(whole), max(1, len(whole) // 16)):
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << (bit % 8)
        file.write_bytes(flipped)
        with pytest.raises(DamagedError, match=f"^{name} has other content"):
            verify(folder)
    file.write_bytes(whole)
    verify(folder)


def test_every_flipped_bit_of_the_manifest_itself_is_found(folder):
    file = folder / "manifest.json"
    whole = file.read_bytes()
    rng = np.random.default_rng(0)
    for bit in rng.choice(8 * len(whole), 500, replace=False):
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << (bit % 8)
        file.write_bytes(flipped)
        with pytest.raises(DamagedError, match=r"^manifest\.json"):
            verify(folder)


def test_the_same_content_in_another_spelling_is_damaged(folder):
    file = folder / "manifest.json"
    content = json.loads(file.read_text())
    for text in (json.dumps(content), file.read_text().replace("0.3", "3E-1")):
        file.write_text(text)
        with pytest.raises(DamagedError, match="not the bytes written"):
            verify(folder)


def test_truncated_grown_and_missing_files_are_named(folder):
    rng = np.random.default_rng(0)
    for name in [*FILES, "manifest.json"]:
        file = folder / name
        whole = file.read_bytes()
        if whole:
            file.write_bytes(whole[: rng.integers(len(whole))])
            with pytest.raises(DamagedError, match=f"^{name}"):
                verify(folder)
        file.write_bytes(whole + b" x")
        with pytest.raises(DamagedError, match=f"^{name}"):
            verify(folder)
        file.unlink()
        with pytest.raises(DamagedError, match=f"^{name}.* is missing"):
            verify(folder)
        file.write_bytes(whole)
    assert verify(folder) == FACTS


def test_a_missing_folder_is_damaged_and_another_json_is_no_manifest(folder):
    with pytest.raises(DamagedError, match="it is missing"):
        verify(folder / "none")
    for other in ([], {"content": 1}, {"content": {}, "sha256": "0"}):
        (folder / "manifest.json").write_text(json.dumps(other))
        with pytest.raises(DamagedError, match="damaged"):
            verify(folder)


@pytest.mark.parametrize("name", ["weights/d/0", "manifest.json"])
def test_a_disk_that_does_not_tell_is_no_damage(folder, name):
    (folder / name).unlink()
    os.symlink(Path(name).name, folder / name)  # a link to itself
    with pytest.raises(OSError, match=name):
        verify(folder)


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


def test_the_number_of_processes_may_change(tmp_path, monkeypatch):
    # What Grain's own handler of iterators goes by.
    monkeypatch.setattr(sharding, "get_process_index_and_count", lambda: (0, 2))
    save_three(tmp_path)
    monkeypatch.undo()
    restored = restore(tmp_path)
    assert restored is not None and restored[0] == 6 and restored[2] == 9


@pytest.mark.parametrize("ema", [True, False])
def test_loads_the_best_for_evaluation_without_data(tmp_path, ema):
    save_three(tmp_path, ema=ema)
    weights = load_weights(tmp_path / "best", initial_params())
    assert weights.step == 4 and weights.history.best == {"step": 4, "per": 0.3}
    assert (weights.ema is not None) == ema
    assert_equal_trees(evaluation_params(weights), initial_params(4))
    assert_equal_trees(load_weights(tmp_path / "best", None).params, initial_params(4))
    assert load_weights(tmp_path / "checkpoints", initial_params(), 6).step == 6
    with pytest.raises(CheckpointError, match=r"no checkpoint of step 5; there are \[4, 6\]"):
        load_weights(tmp_path / "checkpoints", initial_params(), 5)


def test_numbered_layers_are_loaded_without_the_model(tmp_path):
    params = {"layers": {number: {"kernel": jnp.full(3, float(number))} for number in (0, 1, 10)}}
    state = create_state(params, optax.sgd(0.1), data_mesh(), ema=False)
    Checkpoints(tmp_path, keep=1).save_best(2, state, History())
    assert_equal_trees(load_weights(tmp_path / "best", params).params, params)
    loaded = load_weights(tmp_path / "best", None).params
    assert {name: float(layer["kernel"][0]) for name, layer in loaded["layers"].items()} == {
        "0": 0.0,
        "1": 1.0,
        "10": 10.0,
    }


def test_another_models_checkpoint_is_refused(tmp_path):
    save_three(tmp_path)
    wider = initial_params()
    wider["phoneme"]["kernel"] = jnp.zeros((8, 50))
    renamed = initial_params()
    renamed["word"] = renamed.pop("phoneme")
    for params, words in (
        (wider, r"\['phoneme'\]\['kernel'\] is float32\[8, 41\] there, float32\[8, 50\] here"),
        (renamed, r"\['phoneme'\]\['kernel'\] is float32\[8, 41\] there, absent here"),
    ):
        with pytest.raises(CheckpointError, match=rf"checkpoints/6: .*{words}") as caught:
            Checkpoints(tmp_path, keep=2).restore(state_at(0, params=params), numbers())
        assert "elete" not in str(caught.value)
        with pytest.raises(CheckpointError, match=rf"best/4: .*{words}"):
            load_weights(tmp_path / "best", params)
