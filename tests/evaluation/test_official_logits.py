import pickle

import numpy as np
import pytest
import yaml
from scipy.special import log_softmax

from modessm_jax.data.validation import DataError
from modessm_jax.evaluation.official_logits import (
    METRICS,
    read_official_logits,
    write_official_logits,
)

# As in the official configuration, with a session that has no validation trials.
SESSIONS = ["t15.2023.08.11", "t15.2023.08.13", "t15.2023.08.18"]


def official(lengths=((5, 9), (4,)), days=(1, 2), seed: int = 0) -> dict:
    """What the official training pickles, metrics and all."""
    random = np.random.default_rng(seed)
    batches = [np.array(batch, np.int32) for batch in lengths]
    return {
        "logits": [
            random.normal(size=(len(batch), batch.max() + 2, 41)).astype(np.float32)
            for batch in batches
        ],
        "n_time_steps": batches,
        "decoded_seqs": [[np.array([1, 40])] * len(batch) for batch in batches],
        "losses": [np.float32(1.5), 1.5],
        "block_nums": [np.full(len(batch), 5 + number) for number, batch in enumerate(batches)],
        "trial_nums": [np.arange(len(batch)) for batch in batches],
        "day_indicies": [
            np.full(len(batch), day) for batch, day in zip(batches, days, strict=True)
        ],
        "day_PERs": {1: {"total_edit_distance": 3, "total_seq_length": 20}},
        "avg_PER": 0.1,
        "avg_loss": np.float64(1.5),
    }


def write(folder, metrics, sessions=SESSIONS):
    (folder / METRICS).write_bytes(pickle.dumps(metrics))
    config = {"model": {"n_units": 768}, "dataset": {"sessions": sessions, "n_classes": 41}}
    (folder / "args.yaml").write_text(yaml.safe_dump(config))
    return folder / METRICS


def test_trials_are_named_and_padding_is_left_out(tmp_path):
    metrics = official()
    found = read_official_logits(write(tmp_path, metrics))
    assert [(key, len(of)) for key, of in found.items()] == [
        (("t15.2023.08.13", 5, 0), 5),
        (("t15.2023.08.13", 5, 1), 9),
        (("t15.2023.08.18", 6, 0), 4),
    ]
    wanted = log_softmax(metrics["logits"][0][1, :9], axis=1)
    values = found["t15.2023.08.13", 5, 1]
    assert values.dtype == np.float32
    np.testing.assert_allclose(values, wanted, rtol=1e-5)  # classes in the same order
    np.testing.assert_allclose(np.exp(values).sum(axis=1), 1, rtol=1e-5)


def test_sessions_that_nobody_names_are_asked_for(tmp_path):
    path = write(tmp_path, official())
    (tmp_path / "args.yaml").unlink()
    with pytest.raises(DataError, match=r"args\.yaml: cannot be read.*Copy args\.yaml from"):
        read_official_logits(path)


def test_ours_in_their_format_come_back(tmp_path):
    random = np.random.default_rng(1)
    keys = [("s.2", 1, 4), ("s.1", 2, 3), ("s.2", 1, 0), ("s.1", 2, 1)]
    ours = {
        key: log_softmax(5 * random.normal(size=(3 + n, 41)), axis=1).astype(np.float32)
        for n, key in enumerate(keys)
    }
    write_official_logits(tmp_path / "new", ours)
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["args.yaml", METRICS]
    named = yaml.safe_load((tmp_path / "new" / "args.yaml").read_text())
    assert named["dataset"]["sessions"] == ["s.1", "s.2"]
    found = read_official_logits(tmp_path / "new" / METRICS)
    assert list(found) == [keys[1], keys[3], keys[0], keys[2]]  # a session is a batch
    for key, values in ours.items():
        np.testing.assert_allclose(found[key], values, atol=1e-6)


@pytest.mark.parametrize("logits", [np.zeros((0, 41)), np.full((2, 41), -np.inf)])
def test_what_our_own_reader_would_refuse_is_not_written(tmp_path, logits):
    with pytest.raises(DataError, match="s/block 1/trial 0 are none or not all finite"):
        write_official_logits(tmp_path / "new", {("s", 1, 0): logits.astype(np.float32)})
    assert not (tmp_path / "new").exists()


def test_their_reader_needs_nothing_but_numpy_and_finds_what_it_looks_for(tmp_path):
    random = np.random.default_rng(1)
    ours = {
        ("s", 1, n): log_softmax(random.normal(size=(3 + n, 41)), axis=1).astype(np.float32)
        for n in range(3)
    }
    write_official_logits(tmp_path, ours)
    metrics = pickle.loads((tmp_path / METRICS).read_bytes())
    (logits,), (lengths,) = metrics["logits"], metrics["n_time_steps"]
    assert logits.shape == (3, 5, 41) and logits.dtype == np.float32
    assert lengths.tolist() == [3, 4, 5]
    assert metrics["trial_nums"][0].tolist() == [0, 1, 2]
    assert metrics["day_indicies"][0].tolist() == [0, 0, 0]
    np.testing.assert_array_equal(logits[1, :4], ours["s", 1, 1])


def changed(field, batch, value):
    metrics = official()
    metrics[field][batch] = value
    return metrics


LOGITS = official()["logits"][0]


@pytest.mark.parametrize(
    ("metrics", "words"),
    [
        ([1], "holds a list"),
        ({"logits": []}, r"n_time_steps: is no list with an entry for each batch\. Give val_met"),
        ({**official(), "block_nums": [np.zeros(2, int)]}, "block_nums: is no list"),
        (changed("logits", 0, LOGITS[..., :40]), r"batch 0, logits: is float32 \(2, 11, 40\), not"),
        (changed("logits", 0, LOGITS[0]), r"batch 0, logits: is float32 \(11, 41\)"),
        (
            changed("trial_nums", 1, np.zeros(2, int)),
            r"batch 1, trial_nums: is int64 \(2,\), not 1",
        ),
        (changed("block_nums", 1, np.zeros(1)), "batch 1, block_nums: is float64"),
        (changed("n_time_steps", 0, np.array([5, 12])), "n_time_steps: is 12, outside 1 to 11"),
        (changed("n_time_steps", 0, np.array([0, 9])), "n_time_steps: is 0, outside 1 to 11"),
        (changed("day_indicies", 0, np.array([1, 3])), "day_indicies: is 3, outside 0 to 2"),
        (changed("day_indicies", 0, np.array([-1, 1])), "day_indicies: is -1, outside 0 to 2"),
        (changed("trial_nums", 0, np.array([1, 1])), r"8\.13/block 5/trial 1 occurs twice"),
        (changed("logits", 0, LOGITS * np.nan), r"not all finite for t15\.2023\.08\.13/block 5/tr"),
    ],
)
def test_what_contradicts_itself_is_named(tmp_path, metrics, words):
    with pytest.raises(DataError, match=words):
        read_official_logits(write(tmp_path, metrics))


class Program:
    def __reduce__(self):
        return print, ("run",)


def test_a_pickle_cannot_run_anything(tmp_path, capsys):
    path = write(tmp_path, {**official(), "extra": Program()})
    with pytest.raises(DataError, match=r"builtins\.print, which is no NumPy array.*\.numpy\(\)"):
        read_official_logits(path)
    assert capsys.readouterr().out == ""


def test_damaged_files_are_named(tmp_path):
    path = write(tmp_path, official())
    whole = path.read_bytes()
    for content in (b"", whole[:-100], b"not a pickle"):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"val_metrics\.pkl: cannot be read"):
            read_official_logits(path)
    path.write_bytes(whole)
    for config in ("a: [", "3", "dataset: {}", "dataset: {sessions: []}"):
        (tmp_path / "args.yaml").write_text(config)
        with pytest.raises(DataError, match=r"args\.yaml"):
            read_official_logits(path)


def test_a_flipped_bit_is_read_or_named(tmp_path):
    """Damage to a pickle raises whatever the instruction made of it raises."""
    path = write(tmp_path, official(lengths=((2,),), days=(1,)))
    whole, random = bytearray(path.read_bytes()), np.random.default_rng(0)
    named = 0
    for _ in range(400):
        damaged = whole.copy()
        damaged[random.integers(len(whole))] ^= 1 << random.integers(8)
        path.write_bytes(damaged)
        try:
            read_official_logits(path)
        except DataError as error:
            named += 1
            assert str(path) in str(error)
    assert named > 50
