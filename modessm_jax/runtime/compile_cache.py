"""XLA's compiled programs, kept on disk: a restart does not compile, and computes the same bits."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import jax
from jax.experimental.compilation_cache import compilation_cache


@contextmanager
def compile_cache(directory: Path) -> Iterator[None]:
    """Keeps compiled programs in `directory`, unless the user has configured a cache directory."""
    if jax.config.jax_compilation_cache_dir is not None:  # pyright: ignore
        yield
        return
    # XLA's own caches make their path a part of every key: a run directory that has moved would
    # compile again.
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
