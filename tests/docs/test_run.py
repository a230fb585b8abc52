"""What README and docs do with a trained run is done with one, as it stands on the page."""

import h5py
import numpy as np
import pytest

from experiments import checkpoints, evaluate
from tests.docs.conftest import SESSION
from tests.docs.pages import PAGES, blocks, commands

pytestmark = pytest.mark.usefixtures("shared_programs")
PROGRAMS = {"experiments.checkpoints": checkpoints.main, "experiments.evaluate": evaluate.main}
# The rig of live.md needs a decoder: tests/live/test_wire.py runs it.
PYTHON = [
    page
    for page in PAGES
    if page.name != "live.md" and any(b.language == "python" for b in blocks() if b.page == page)
]
RUN = [
    command
    for command in commands()
    if command.page in ("resume.md", "getting_started.md") and set(command.words) & PROGRAMS.keys()
]


@pytest.mark.parametrize("page", PYTHON, ids=lambda page: page.name)
def test_the_python_of_a_page_runs(page, place, monkeypatch):
    monkeypatch.chdir(place)
    with h5py.File(place / "DATA" / SESSION / "data_val.hdf5") as file:
        features = np.asarray(file["trial_0000/input_features"])
    known = {"features": features, "trials": [features]}
    for block in blocks():
        if block.page == page and block.language == "python":
            exec(compile(block.text, page.name, "exec"), known)


@pytest.mark.parametrize("command", RUN, ids=str)
def test_the_commands_on_a_run_work(command, place, monkeypatch):
    monkeypatch.chdir(place)
    _, _, program, *arguments = command.words
    PROGRAMS[program](arguments)


def test_there_is_something_to_run():
    assert "README.md" in {page.name for page in PYTHON} and len(RUN) == 4
