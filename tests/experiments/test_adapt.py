"""Recalibration by the command: a run like any other, whose old sessions are as they were."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from configs.gru import get_config
from experiments.adapt import main
from modessm_jax.runs.finished import write_run
from modessm_jax.runs.load import Run, build_model, load_run
from modessm_jax.runs.state import by_path
from tests.data.layout import CHANNELS, write_split

OLD, NEW, BARE = "day.2024.01.01", "day.2024.01.09", "day.2024.01.20"


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("data")
    for session in (OLD, NEW):
        write_split(root, session, "train", [40, 44, 36, 48, 40])
        write_split(root, session, "val", [40, 44])
    write_split(root, BARE, "test", [40])
    return root


@pytest.fixture(scope="module")
def workdir(root, tmp_path_factory) -> Path:
    """An untrained run that knows the old session."""
    config = get_config("demo")
    config.update(
        {
            "data": {"root": str(root)},
            "model": {"d": 8, "layers": 1, "patch": 4, "stride": 4, "smoothing": 0.0},
        }
    )
    plain = json.loads(config.to_json())
    workdir = tmp_path_factory.mktemp("run") / "run"
    params: Any = build_model(plain, CHANNELS, 1).params
    params["head"]["bias"] = params["head"]["bias"].at[7].set(3.0)
    # As trained ones are: weight decay would change them.
    params["adaptation"] = {name: leaf + 0.1 for name, leaf in params["adaptation"].items()}
    dataset = {"sessions": [OLD], "channels": CHANNELS, "trials": {}, "folders": [OLD]}
    write_run(workdir, plain, dataset, params)
    return workdir


def adapt(workdir: Path, root: Path, out: Path, *further: str, session: str = NEW) -> Run:
    main(
        [
            "--workdir", str(workdir), "--data_root", str(root), "--session", session,
            "--out", str(out), *further,
        ]
    )  # fmt: skip
    return load_run(out)


def differing(one: Run, other: Run) -> set[str]:
    """The paths of the parameters, of the adapters those of the old session, that differ."""
    found = []
    for run in (one, other):
        entry = run.sessions[OLD]
        found.append(
            {
                path: np.asarray(leaf[entry] if path.startswith("adaptation/") else leaf)
                for path, leaf in by_path(run.params).items()
            }
        )
    return {path for path, leaf in found[0].items() if not np.array_equal(leaf, found[1][path])}


@pytest.mark.slow
def test_without_labels_the_adapter_of_the_session_alone_changes(workdir, root, tmp_path, capsys):
    before = load_run(workdir)
    made = adapt(workdir, root, tmp_path / "out", "--unlabelled", "pseudo_labels", "--trials", "3")
    assert list(made.sessions) == [OLD, NEW] and made.config["data"]["root"] == str(root)
    assert differing(before, made) == set()
    adapters = made.params["adaptation"]["weight"]
    assert np.abs(adapters[made.sessions[NEW]] - adapters[made.sessions[OLD]]).max() > 0
    said = capsys.readouterr().out
    assert "pseudo_labels: 3 trials, 0 of 1 checks took steps back" in said
    assert f"{NEW} " in said and "1 sessions trained on" in said
    kept = json.loads((tmp_path / "out" / "recalibration.json").read_text())
    assert kept["others_before"] == kept["others_after"] and kept["session"] == NEW
    with pytest.raises(SystemExit, match="is not empty; give a new folder"):
        adapt(workdir, root, tmp_path / "out", "--unlabelled", "pseudo_labels")


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["adapter", "front_end", "all"])
def test_with_labels_the_recipe_says_what_changes(workdir, root, tmp_path, recipe, capsys):
    before = load_run(workdir)
    made = adapt(
        workdir, root, tmp_path / "out", "--recipe", recipe, "--trials", "4", "--steps", "12"
    )
    assert list(made.sessions) == [OLD, NEW]
    changed = differing(before, made)
    assert changed == set() if recipe == "adapter" else "gru/layers/0/0/input/kernel" in changed
    assert ("head/kernel" in changed) == (recipe == "all")
    train = "8 trials of 2" if recipe == "all" else "4 trials of 1"
    assert f"train: {train.replace('8', '9')} sessions" in capsys.readouterr().out
    kept = json.loads((tmp_path / "out" / "recalibration.json").read_text())
    adapters = made.params["adaptation"]["weight"]
    assert np.abs(adapters[made.sessions[NEW]] - adapters[made.sessions[OLD]]).max() > 0
    if recipe == "adapter":
        assert kept["others_before"] == kept["others_after"]


@pytest.mark.parametrize(
    ("session", "further", "message"),
    [
        ("nowhere", (), "has no session nowhere, but day.2024.01.01"),
        (BARE, (), "no session read has a data_train.hdf5"),
    ],
)
def test_what_is_not_there_is_said(workdir, root, tmp_path, session, further, message):
    with pytest.raises(SystemExit, match=message):
        adapt(workdir, root, tmp_path / "out", *further, session=session)


@pytest.mark.parametrize(
    ("further", "message"),
    [
        (("--passes", "2"), "need --unlabelled"),
        (("--unlabelled", "entropy", "--recipe", "all"), "leave --unlabelled away"),
        (("--unlabelled", "entropy", "--lm", "x"), "--lm needs --lexicon"),
        (("--trials", "0"), "--trials must be 1 or more"),
    ],
)
def test_options_that_do_not_fit(tmp_path, capsys, further, message):
    with pytest.raises(SystemExit):
        adapt(tmp_path, tmp_path, tmp_path, *further)
    assert message in capsys.readouterr().err
