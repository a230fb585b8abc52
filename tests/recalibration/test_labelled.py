"""The config of a labelled recalibration: it fits every model, and trains what its recipe says."""

import importlib
from pathlib import Path
from typing import Any

import pytest

from modessm_jax.data.hdf5 import Trial
from modessm_jax.recalibration.labelled import RECIPES, recalibration, trained_by
from modessm_jax.runs.load import build_shapes
from modessm_jax.runs.state import by_path
from modessm_jax.training.stages import read_stages, trained

SLOW = (pytest.param(name, marks=pytest.mark.slow) for name in ("conformer", "multiscale"))
MODELS = ("gru", "transformer", *SLOW, pytest.param("modessm", marks=pytest.mark.slow))


def config_of(model: str) -> dict[str, Any]:
    return importlib.import_module(f"configs.{model}").get_config("demo").to_dict()


def made(model: str, recipe: str, **changes: Any) -> dict[str, Any]:
    config = config_of(model)
    options = {"replayed": ["a", "c"], "steps": 60, "batch_size": 20} | changes
    unused = [Trial("b", 2, n, Path("file"), "group", 9, None, None, None) for n in (7, 8)]
    found = recalibration(
        config, Path("runs/x"), root=Path("new"), session="b", unused=unused, recipe=recipe,
        **options,
    )  # fmt: skip
    assert config == config_of(model)  # as it was
    return found.to_dict()


@pytest.mark.parametrize("model", MODELS)
def test_each_recipe_trains_its_part_of_each_model(model):
    params = build_shapes(config_of(model), 8, 2).params
    for recipe in RECIPES:
        if recipe == "adapter" and model == "transformer":
            with pytest.raises(ValueError, match=r"no adapters .* front_end or all"):
                trained_by(recipe, config_of(model)["model"])
            continue
        (stage,) = read_stages(made(model, recipe))
        marks = by_path(trained(params, stage))
        tops = {path.split("/")[0] for path, trains in marks.items() if trains}
        rest = {path.split("/")[0] for path, trains in marks.items() if not trains}
        if recipe == "adapter":
            assert tops == {"adaptation"}
        elif recipe == "front_end":
            assert "head" in rest and len(tops - {"adaptation"}) >= 1
        else:
            assert rest == ({"flow"} if model == "modessm" else set())
        assert set(stage.weights) - {"flow"} == set(stage.weights) and stage.weights["phoneme"]


def test_the_data_of_a_recalibration():
    config = made("gru", "adapter", batch_size=5)
    assert config["init"] == {"run": "runs/x", "skip": (), "sessions": "nearest"}
    assert config["data"]["sessions"] == ("b",)
    assert config["data"]["exclude"] == ("b/2/7", "b/2/8")
    assert config["data"]["batch_size"] == 5 and config["data"]["sessions_per_batch"] == 0
    config = made("gru", "all")
    assert config["data"]["sessions"] == ("b", "a", "c")
    assert config["data"]["batch_size"] == 16
    assert config["training"]["eval_every"] == 60  # val chooses nothing
