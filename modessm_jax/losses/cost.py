"""What every objective returns."""

from typing import Any

from flax import struct


@struct.dataclass
class Cost:
    """What an objective charges each example, before any normalisation.

    An example that is not valid has 0 nats and a gradient of exactly zero.
    """

    nats: Any  # float [batch]
    valid: Any  # bool [batch]
