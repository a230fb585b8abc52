"""What a compiled program takes of its device's memory, against what there is."""

from typing import Any

import jax

_GIB = 2**30
_REMEDY = (
    "Should it not fit, set --config.training.accumulate=2 or more, --config.model.remat=blocks, "
    "or a smaller --config.data.batch_size"
)


def memory_limit() -> int | None:
    """Bytes that programs may take of each device of this process; None where it does not say."""
    found = [(device.memory_stats() or {}).get("bytes_limit") for device in jax.local_devices()]
    return min((limit for limit in found if limit), default=None)


def describe_memory(program: Any, limit: int) -> str:
    """A line on the memory of a compiled program, with what to change where it is more than 90 %.

    Args:
        program: a compiled function of JAX.
        limit: bytes of the device.
    """
    found = program.memory_analysis()
    needed = found.argument_size_in_bytes + found.output_size_in_bytes + found.temp_size_in_bytes
    needed -= found.alias_size_in_bytes  # results in the place of arguments
    line = f"{needed / _GIB:.1f} of {limit / _GIB:.1f} GiB of the device's memory"
    return line if needed <= 0.9 * limit else f"{line}. {_REMEDY}"
