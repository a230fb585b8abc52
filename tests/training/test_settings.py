from typing import Any

import pytest

from configs import common
from modessm_jax.training.settings import GuardSettings, Settings

VALID: dict[str, Any] = dict(
    accumulate=1,
    ema_decay=0.0,
    seed=0,
    log_every=1,
    eval_every=1,
    save_every=1,
    keep=1,
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


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"nonfinite_budget": -1}, r"guard\.nonfinite_budget is -1"),
        ({"tries": -1}, r"guard\.tries is -1"),
        ({"window": 8}, r"guard\.window is 8; it must be at least 16"),
        ({"rise": 1.0}, r"guard\.rise is 1\.0"),
        ({"lr_factor": 0.0}, r"guard\.lr_factor is 0\.0"),
    ],
)
def test_a_guard_that_makes_no_sense_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        GuardSettings(**{**common.guard(), **change})
