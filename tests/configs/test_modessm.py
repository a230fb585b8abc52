"""What the recipe's stages train of the real model, at its real sizes."""

import math

import jax
import pytest

from configs.modessm import get_config
from modessm_jax.runs.load import build_model
from modessm_jax.training.stages import read_stages, trained

CHANNELS, SESSIONS = 512, 45  # of T15
JOIN_LATER = {"transducer", "mode", "film", "flow"}


def shapes(variant: str):
    config = get_config(variant).to_dict()
    return config, jax.eval_shape(lambda: build_model(config, CHANNELS, SESSIONS).params)


@pytest.mark.parametrize("variant", ["", "small", "demo"])
def test_each_stage_trains_what_its_name_says(variant: str) -> None:
    config, params = shapes(variant)
    shared = set(params) - JOIN_LATER
    expected = {
        "ctc_warmup": shared,
        "transducer": {"transducer"},
        "joint": shared | {"transducer"},
        "mode": shared | {"transducer", "mode", "film"},
        "flow": {"flow"},
    }
    stages = read_stages(config)
    assert [stage.name for stage in stages] == list(expected)
    for stage in stages:
        marks = trained(params, stage)
        whole = {part for part in params if all(jax.tree.leaves(marks[part]))}
        assert whole == expected[stage.name]
        assert not any(jax.tree.leaves([marks[part] for part in set(params) - whole]))


def test_the_full_size_is_as_it_says() -> None:
    _, params = shapes("")
    assert sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params)) == 45_814_644
