"""What the loader hands to the training step."""

from typing import Any

from flax import struct

from modessm_jax.sequence import Sequence


@struct.dataclass
class Batch:
    """Trials padded to one shape.

    A row whose masks are all false fills up a last, incomplete batch and counts for nothing.
    """

    features: Sequence  # float32 [batch, time, channels]
    labels: Sequence  # int32 [batch, labels], phoneme ids 1..40
    session: Any  # int32 [batch], index into the recordings' session names
    block: Any  # int32 [batch], equal for trials of one block of one session
    trial: Any  # int32 [batch], index into the recordings' trials; -1 in a filler row
