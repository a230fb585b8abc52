import json

import pytest

from modessm_jax.runs.checkpoints import CheckpointError
from modessm_jax.runs.identity import FORMAT, check_identity, keeps_former_rules, read_identity

CONFIG = {
    "data": {"root": "here", "workers": 0, "sessions": []},
    "training": {"steps": 10, "log_every": 5},
}
DATASET = {"channels": 4, "trials": {"train": {"a": "3 trials"}}}


def test_a_run_of_another_config_is_refused_with_its_differences(tmp_path):
    check_identity(tmp_path, CONFIG, DATASET, resuming=False)
    other = {**CONFIG, "training": {"steps": 20, "log_every": 5}, "model": {"width": 3}}
    with pytest.raises(CheckpointError) as caught:
        check_identity(tmp_path, other, DATASET, resuming=True)
    assert "training.steps: 10 then, 20 now" in str(caught.value)
    assert "model.width: 'absent' then, 3 now" in str(caught.value)
    assert "log_every" not in str(caught.value)
    check_identity(tmp_path, other, DATASET, resuming=False)
    check_identity(tmp_path, other, DATASET, resuming=True)


def test_a_run_on_other_data_is_refused_with_their_differences(tmp_path):
    check_identity(tmp_path, CONFIG, DATASET, resuming=False)
    other = {"channels": 4, "trials": {"train": {"a": "4 trials", "b": "1 trial"}}}
    with pytest.raises(CheckpointError) as caught:
        check_identity(tmp_path, CONFIG, other, resuming=True)
    assert str(caught.value).splitlines()[1:] == [
        "  dataset.trials.train.a: '3 trials' then, '4 trials' now",
        "  dataset.trials.train.b: 'absent' then, '1 trial' now",
    ]
    assert '"3 trials"' in (tmp_path / "dataset.json").read_text()


@pytest.mark.parametrize("lost", ["config", "dataset"])
def test_keys_that_do_not_change_the_result_may_change(tmp_path, lost):
    check_identity(tmp_path, CONFIG, DATASET, resuming=False)
    data = {"root": "there", "workers": 4, "sessions": [], "table": "there/t.csv", "lexicon": "l"}
    training, model = {"steps": 10, "log_every": 1}, {"remat": "blocks"}
    freer = {"data": data, "model": model, "training": training}
    check_identity(tmp_path, freer, DATASET, resuming=True)
    assert json.loads((tmp_path / "config.json").read_text()) == freer
    (tmp_path / f"{lost}.json").unlink()
    with pytest.raises(CheckpointError, match=rf"{lost}\.json is missing"):
        check_identity(tmp_path, freer, DATASET, resuming=True)


def test_a_run_of_a_later_format_is_refused_and_one_without_a_number_is_the_first(tmp_path):
    check_identity(tmp_path, CONFIG, DATASET, resuming=False)
    path = tmp_path / "format.json"
    assert json.loads(path.read_text()) == {"format": FORMAT, "begun": FORMAT}
    assert not keeps_former_rules(tmp_path)
    path.write_text(json.dumps({"format": FORMAT + 1}))
    with pytest.raises(CheckpointError, match=rf"has format {FORMAT + 1}, and this version"):
        check_identity(tmp_path, CONFIG, DATASET, resuming=True)
    path.unlink()
    check_identity(tmp_path, CONFIG, DATASET, resuming=True)
    assert read_identity(tmp_path) == (CONFIG, DATASET)
    assert json.loads(path.read_text()) == {"format": FORMAT, "begun": 1}


def test_a_run_keeps_the_rules_of_the_format_it_was_begun_in(tmp_path):
    assert not keeps_former_rules(tmp_path / "new")
    check_identity(tmp_path, CONFIG, DATASET, resuming=False)
    (tmp_path / "format.json").write_text('{"format": 2}')
    for _ in range(2):
        assert keeps_former_rules(tmp_path)
        check_identity(tmp_path, CONFIG, DATASET, resuming=True)
    assert json.loads((tmp_path / "format.json").read_text()) == {"format": FORMAT, "begun": 2}
