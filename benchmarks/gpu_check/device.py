"""The device, the versions, and two ceilings: matrix products in bfloat16, and copies."""

import importlib.metadata

import jax
import jax.numpy as jnp

from benchmarks.gpu_check import programs
from benchmarks.losses import processor
from benchmarks.losses.report import table


def matrix_ceiling(smoke: bool) -> float:
    """Floating-point operations a second of a large square product of bfloat16 matrices."""
    size = 256 if smoke else 8192
    a, b = jax.random.normal(jax.random.key(0), (2, size, size), jnp.bfloat16)
    product = jax.jit(jnp.matmul)
    found = programs.times(lambda: jax.block_until_ready(product(a, b)), rounds=11)
    return 2 * size**3 / found.median


def copy_ceiling(smoke: bool) -> float:
    """Bytes a second, read and written, of the negation of a large array."""
    values = jnp.ones((2**16 if smoke else 2**30,), jnp.float32)
    negate = jax.jit(jnp.negative)
    found = programs.times(lambda: jax.block_until_ready(negate(values)), rounds=11)
    return 2 * values.nbytes / found.median


def main() -> None:
    smoke = programs.parser(__doc__).parse_args().smoke
    device = jax.devices()[0]
    rows = [("device", device.device_kind), ("platform", device.platform)]
    rows += list(processor.about().items())
    rows += [(name, importlib.metadata.version(name)) for name in ("jaxlib", "flax", "numpy")]
    with programs.alone():
        rows.append(("bfloat16 product, TFLOP/s", f"{matrix_ceiling(smoke) / 1e12:.1f}"))
        rows.append(("copy, GB/s read and written", f"{copy_ceiling(smoke) / 1e9:.0f}"))
    limit = (device.memory_stats() or {}).get("bytes_limit")
    rows.append(("memory that JAX may take, GiB", f"{limit / programs.GIB:.1f}" if limit else ""))
    print(table(("", ""), rows))


if __name__ == "__main__":
    main()
