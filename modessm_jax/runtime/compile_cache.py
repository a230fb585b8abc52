"""Keeping compiled programs, so that a restart neither waits nor gets others than it began with."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import jax
from jax.experimental.compilation_cache import compilation_cache


@contextmanager
def compiled_programs(directory: Path) -> Iterator[None]:
    """Keeps XLA's programs in `directory`, unless the user has named a place of their own."""
    if jax.config.jax_compilation_cache_dir is not None:  # pyright: ignore
        yield
        return
    # XLA's own caches would have their place written into every key, and a directory that has moved
    # would be compiled for again.
    before = jax.config.jax_persistent_cache_enable_xla_caches  # pyright: ignore
    jax.config.update("jax_persistent_cache_enable_xla_caches", "none")
    jax.config.update("jax_compilation_cache_dir", str(directory.absolute()))
    compilation_cache.reset_cache()
    try:
        yield
    finally:
        jax.config.update("jax_compilation_cache_dir", None)
        jax.config.update("jax_persistent_cache_enable_xla_caches", before)
        compilation_cache.reset_cache()
