import json
import os
from pathlib import Path

import numpy as np
import pytest

from modessm_jax.training.manifest import DamagedError, read, seal, verify

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
    files = read(folder)["files"]
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
        with pytest.raises(DamagedError, match="not as it was spelt"):
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
