"""The run on which faults are tried: MODE-SSM in all its stages, with all that a resume could lose.

Dropout, a running average, augmentation, corruption, accumulation, buckets and a loader worker are
on. It has learnt nothing when it ends; it is to be long enough to be killed, and no longer.
"""

from ml_collections import ConfigDict

from configs import modessm

STAGES: tuple[str, ...] = modessm.get_config("small").to_dict()["stages"]["order"]
STEPS = 4  # of each


def get_config() -> ConfigDict:
    """`configs/modessm.py:small`, made tiny."""
    config = modessm.get_config("small")
    config.update(
        {
            "data": {"batch_size": 4, "buckets": 2, "workers": 1},
            "model": {
                "gate": 4,
                "stride": 4,
                "d": 8,
                "layers": 2,
                "heads": 2,
                "state": 4,
                "joint": 8,
                "stochastic_depth": 0.1,
            },
            "stages": {name: {"steps": STEPS, "warmup_steps": 1} for name in STAGES},
            "training": {
                "accumulate": 2,
                "ema_decay": 0.9,
                "log_every": 1,
                "eval_every": 4,
                "save_every": 2,
                "keep": 2,
            },
        }
    )
    return config
