from typing import Any

import pytest

from modessm_jax.training.settings import Settings

VALID: dict[str, Any] = dict(
    accumulate=1,
    ema_decay=0.0,
    seed=0,
    log_every=1,
    eval_every=1,
    save_every=1,
    keep=1,
    select_by="per",
)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"save_every": 0}, r"training\.save_every is 0"),
        ({"accumulate": 0}, r"training\.accumulate is 0"),
        ({"ema_decay": 1.0}, r"training\.ema_decay is 1\.0"),
    ],
)
def test_settings_that_make_no_run_are_refused(change, message):
    Settings(**VALID)
    with pytest.raises(ValueError, match=message):
        Settings(**{**VALID, **change})
