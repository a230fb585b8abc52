"""A trained run's predictor and joint network, in a form that other processes can be given."""

import hashlib
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from modessm_jax.decoding.transducer import Transducer
from modessm_jax.losses.joint import Joint
from modessm_jax.training.evaluation import transducer_of
from modessm_jax.training.runs import Run, build_shapes


@dataclass(frozen=True, eq=False)
class RunTransducer:
    """What a run's `Transducer` is made of; unlike its functions, this can be pickled."""

    config: dict[str, Any]
    channels: int
    sessions: int
    params: Any  # NumPy arrays, of the whole model
    joint: Joint  # NumPy arrays

    @classmethod
    def of(cls, run: Run, joint: Joint) -> "RunTransducer":
        """That of a run whose model has one, with the joint network that its `Outputs` give."""
        params, joint = jax.device_get((run.params, joint))
        return cls(run.config, run.channels, len(run.sessions), params, joint)

    def functions(self) -> Transducer:
        """The transducer."""
        built = build_shapes(self.config, self.channels, self.sessions)
        predict: Any = built.predict
        return transducer_of(predict, *jax.device_put((self.params, self.joint)))

    @property
    def digest(self) -> str:
        """A checksum of every parameter."""
        sha = hashlib.sha256()
        for path, leaf in jax.tree_util.tree_leaves_with_path((self.params, self.joint)):
            sha.update(f"{jax.tree_util.keystr(path)} {leaf.shape} {leaf.dtype}".encode())
            sha.update(np.ascontiguousarray(leaf).tobytes())
        return sha.hexdigest()
