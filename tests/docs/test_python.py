"""Every Python block of a page runs, one after the other, and as it stands."""

import h5py
import numpy as np
import pytest

from tests.docs.conftest import SESSION
from tests.docs.pages import PAGES, blocks

PYTHON = [page for page in PAGES if any(b.language == "python" for b in blocks() if b.page == page)]


@pytest.mark.parametrize("page", PYTHON, ids=lambda page: page.name)
def test_the_blocks_of_a_page_run(page, place, monkeypatch):
    monkeypatch.chdir(place)
    with h5py.File(place / "DATA" / SESSION / "data_val.hdf5") as file:
        known = {"features": np.asarray(file["trial_0000/input_features"])}
    for block in blocks():
        if block.page == page and block.language == "python":
            exec(compile(block.text, page.name, "exec"), known)


def test_the_readme_shows_python():
    assert "README.md" in {page.name for page in PYTHON}
