"""What a run keeps to in all its stages."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Settings:
    """`config.training`, without `steps`: how long a run is its stages say."""

    accumulate: int  # micro-batches of one update
    ema_decay: float  # of the running average that is evaluated; 0 keeps none
    seed: int
    log_every: int  # steps, as are the next two
    eval_every: int
    save_every: int
    keep: int  # checkpoints
    select_by: str  # error rate of the evaluation; the lowest is best

    def __post_init__(self):
        for name in ("accumulate", "log_every", "eval_every", "save_every", "keep"):
            if getattr(self, name) < 1:
                raise ValueError(f"training.{name} is {getattr(self, name)}; it must be at least 1")
        if not 0.0 <= self.ema_decay < 1.0:
            raise ValueError(f"training.ema_decay is {self.ema_decay}; it must lie in [0, 1)")
