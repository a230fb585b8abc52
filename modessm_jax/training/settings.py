"""Settings that hold for all stages of a run."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Settings:
    """`config.training`, without what each stage has of its own: `steps` and `select_by`."""

    accumulate: int  # micro-batches of one update
    ema_decay: float  # of the running average that is evaluated; 0 keeps none
    seed: int
    log_every: int  # steps, as are the next two
    eval_every: int
    save_every: int
    keep: int  # checkpoints

    def __post_init__(self):
        for name in ("accumulate", "log_every", "eval_every", "save_every", "keep"):
            if getattr(self, name) < 1:
                raise ValueError(f"training.{name} is {getattr(self, name)}; it must be at least 1")
        if not 0.0 <= self.ema_decay < 1.0:
            raise ValueError(f"training.ema_decay is {self.ema_decay}; it must lie in [0, 1)")


@dataclasses.dataclass(frozen=True)
class GuardSettings:
    """`config.guard`: when a run goes back to a checkpoint, and how it goes on from there."""

    nonfinite_budget: int  # steps skipped in a row; one more and the run goes back
    tries: int  # times a run may go back for one cause before it stops
    divergence: bool  # whether a sustained rise of the loss sends a run back
    window: int  # steps over which the level of the loss is measured
    rise: float  # ratio of losses below which nothing counts as a rise
    lr_factor: float  # what the learning rate is multiplied by after each divergence

    def __post_init__(self):
        for name, least in (("nonfinite_budget", 0), ("tries", 0), ("window", 16)):
            if getattr(self, name) < least:
                raise ValueError(
                    f"guard.{name} is {getattr(self, name)}; it must be at least {least}"
                )
        if not self.rise > 1.0:
            raise ValueError(f"guard.rise is {self.rise}; it must be above 1")
        if not 0.0 < self.lr_factor <= 1.0:
            raise ValueError(f"guard.lr_factor is {self.lr_factor}; it must lie in (0, 1]")
