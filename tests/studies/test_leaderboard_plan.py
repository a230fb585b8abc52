"""What a leaderboard trains: recipes read as training reads them, and steps within seconds."""

import numpy as np
import pytest

from modessm_jax.data.validation import DataError
from modessm_jax.training.optimizer import make_schedule
from studies.leaderboard.plan import check_data, probe, read_entry, scaled, steps_of, steps_within
from tests.data.layout import write_split

# ml_collections loads configs in a way that Python is about to drop.
pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")

TEXT = "multiscale:small model.causal=True"


def test_a_recipe_with_changed_keys():
    entry = read_entry(TEXT, ["--config.training.steps=50"])
    assert entry.arguments == (
        "--config=configs/multiscale.py:small",
        "--config.model.causal=True",
        "--config.training.steps=50",
    )
    assert entry.config["model"]["causal"] is True and steps_of(entry.config) == 50
    assert (entry.name, entry.folder) == (TEXT, "multiscale-small-model.causal=True")
    named = read_entry(f"a causal one={TEXT}".replace(" ", "_", 2))
    assert named.name == named.folder == "a_causal_one"
    assert named.arguments == entry.arguments[:2]
    same = read_entry("configs/multiscale.py:small")
    assert same.arguments == ("--config=configs/multiscale.py:small",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nothing:small", r"nothing:small: .*'configs/nothing.py'"),
        ("gru:smal", r"no variant 'smal' of this config: choose t12 or small or demo"),
        ("gru:small training.step=3", r'no key \'step\'. Did you mean "steps"'),
        ("gru:small training.steps=many", "invalid literal for int"),
        ("gru:small training.steps=0", "steps = 0"),
    ],
)
def test_a_recipe_that_is_none(text, message):
    with pytest.raises(ValueError, match=message):
        read_entry(text)


def test_one_stage_and_its_warm_up_grow_in_proportion():
    config = read_entry("gru:small").config  # 1,000 steps, 83 of them to warm up
    assert scaled(config, 1.5, 8) == {
        "training.steps": 1500,
        "optimizer.warmup_steps": 124,
        "training.eval_every": 188,
        "training.save_every": 188,
    }


def test_all_stages_grow_in_proportion():
    config = read_entry("modessm:small").config
    found = scaled(config, 0.5, 7)
    names = ("ctc_warmup", "transducer", "joint", "mode", "flow")
    assert [found[f"stages.{name}.steps"] for name in names] == [200, 50, 300, 50, 100]
    assert [found[f"stages.{name}.warmup_steps"] for name in names] == [25, 25, 25, 10, 10]
    assert found["training.eval_every"] == found["training.save_every"] == 100
    assert len(found) == 12


def test_steps_take_the_seconds_allowed():
    for name in ("gru:small", "modessm:small"):
        config = read_entry(name).config
        found = steps_within(config, 450.0, 0.6)
        steps = sum(value for key, value in found.items() if key.endswith(".steps"))
        assert abs(steps * 0.6 - 450) <= 5 * 0.6  # half a step for each of five stages


def test_a_probe_is_short_has_every_stage_and_a_schedule():
    for name, least in (("gru:small", 48), ("gru", 48), ("modessm:small", 56), ("modessm", 48)):
        found = probe(read_entry(name).config)
        steps = {k: v for k, v in found.items() if k.endswith(".steps")}
        assert least <= sum(steps.values()) <= 65 and min(steps.values()) >= 4
    shortest = scaled(read_entry("gru:small").config, 1e-6, 8)
    rates = {"peak_lr": 0.1, "end_lr": 0.01, "warmup_steps": shortest["optimizer.warmup_steps"]}
    assert np.asarray(make_schedule(**rates, steps=shortest["training.steps"])(0)) > 0


def test_data_sets_need_their_splits(tmp_path):
    with pytest.raises(DataError, match="there is no such folder"):
        check_data(tmp_path / "nowhere", ["train"])
    write_split(tmp_path, "a", "train", [9])
    check_data(tmp_path, ["train"])
    with pytest.raises(
        DataError, match=r"no session read has a data_val.hdf5, there is data_train"
    ):
        check_data(tmp_path, ["train", "val"])
