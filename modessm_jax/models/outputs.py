"""What every model returns."""

from typing import Any

from flax import struct

from modessm_jax.sequence import Sequence


@struct.dataclass
class Outputs:
    """Result of one forward pass.

    `logits` always holds "phoneme"; further names ("interctc", "diphone", ...) are auxiliary heads.
    `diagnostics` holds one figure per example, for reports alone: {"norm/fast": [batch], ...}.
    """

    encoder: Sequence  # [batch, frames, d]
    logits: dict[str, Sequence]  # float32 [batch, frames, classes]
    diagnostics: dict[str, Any]
