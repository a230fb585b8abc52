"""A run that begins with another's weights: by path, sessions by name, and what does not fit."""

from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from modessm_jax.runs.warm_start import (
    Source,
    format_report,
    inherited,
    read_source,
    warm_start,
)

CHANNELS = 3
KNOWN = {"day.2024.01.01": 0, "day.2024.01.05": 1}
SESSIONS = {"day.2024.01.01": 0, "day.2024.01.04": 1, "other": 2}


def params_of(sessions: int, value: float, **further: Any) -> dict[str, Any]:
    entries = jnp.arange(1.0, 1 + sessions)[:, None, None]
    return {
        "adaptation": {"weight": value * entries * jnp.ones((1, CHANNELS, CHANNELS))},
        "layers": {0: {"kernel": jnp.full((2, 2), value)}},
        **further,
    }


def source_of(**further: np.ndarray) -> Source:
    weight = np.asarray(params_of(2, 5.0)["adaptation"]["weight"])
    kernel = np.full((2, 2), 5.0, np.float32)
    params = {"adaptation/weight": weight, "layers/0/kernel": kernel, **further}
    return Source(Path("runs/before"), params, KNOWN)


def init(**changes: Any) -> dict[str, Any]:
    return {"run": "runs/before", "skip": (), "sessions": "nearest", **changes}


@pytest.mark.parametrize(
    ("rule", "of_new", "of_other"),
    [("nearest", 10.0, 10.0), ("mean", 7.5, 7.5), ("identity", 0.0, 0.0)],
)
def test_weights_are_found_by_path_and_adapters_by_name(rule, of_new, of_other):
    mask = jnp.full(CHANNELS, 9.0)  # of a model that hides bins; the source hid none
    left = {"old_head/bias": np.zeros(2, np.float32)}
    found, report = warm_start(
        params_of(3, 0.0, mask_vector=mask), source_of(**left), SESSIONS, init(sessions=rule)
    )
    assert list(found["adaptation"]["weight"][:, 0, 0]) == [5.0, of_new, of_other]
    np.testing.assert_array_equal(found["layers"][0]["kernel"], np.full((2, 2), 5.0))
    np.testing.assert_array_equal(found["mask_vector"], mask)
    assert report["loaded"] == ["adaptation/weight", "layers/0/kernel"]
    changed = source_of(**left)
    changed.params["layers/0/kernel"][0, 0] += 1
    other = warm_start(params_of(3, 0.0), changed, SESSIONS, init(sessions=rule))[1]
    assert report["checksum"] != other["checksum"]
    assert (report["new"], report["left"]) == (["mask_vector"], ["old_head/bias"])
    like = {"nearest": "day.2024.01.05"}.get(rule, rule)
    assert report["mapped"]["day.2024.01.04"] == like
    table = format_report(report)
    assert f"day.2024.01.04 as {like}" in table and "1 sessions as they were" in table


def test_what_does_not_fit_is_named_unless_it_is_skipped():
    wide = source_of(**{"layers/0/kernel": np.zeros((4, 2), np.float32)})
    with pytest.raises(ValueError, match=r"layers/0/kernel: \(4, 2\) there, \(2, 2\) here"):
        warm_start(params_of(3, 1.0), wide, SESSIONS, init())
    found, report = warm_start(params_of(3, 1.0), wide, SESSIONS, init(skip=("layers/*",)))
    np.testing.assert_array_equal(found["layers"][0]["kernel"], np.ones((2, 2)))
    assert report["new"] == ["layers/0/kernel"] == report["left"]
    with pytest.raises(ValueError, match=r"init.skip: 'stem/"):
        warm_start(params_of(3, 1.0), wide, SESSIONS, init(skip=("stem/*",)))
    with pytest.raises(ValueError, match=r"init.sessions is 'guess'; choose one of nearest, mean,"):
        warm_start(params_of(3, 1.0), wide, SESSIONS, init(sessions="guess"))
    with pytest.raises(ValueError, match="no parameter of this name"):
        warm_start({"a": jnp.zeros(1)}, wide, SESSIONS, init())


def test_adapters_are_inherited_where_they_are_taken_over():
    assert inherited(source_of(), init(), CHANNELS) == list(KNOWN)
    assert inherited(source_of(), init(), CHANNELS + 1) == []
    assert inherited(source_of(), init(skip=("adaptation/*",)), CHANNELS) == []


def test_exported_weights_are_read_with_their_sessions(tmp_path):
    file = tmp_path / "model.npz"
    source = source_of()
    np.savez(file, allow_pickle=False, **source.params, sessions=np.array(list(KNOWN)))
    found = read_source(file)
    assert found.sessions == KNOWN and found.params.keys() == source.params.keys()
    file.write_text("no weights")
    with pytest.raises(ValueError, match=r"init.run: .*model.npz is no file of exported weights"):
        read_source(file)
