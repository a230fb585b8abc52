"""XLA's compiled programs, kept on disk: a restart does not compile, and computes the same bits."""

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

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


@dataclasses.dataclass(frozen=True, eq=False)
class Seeded:
    """A jitted function, or what becomes of it, whose last argument is the seed of the run.

    So the compiled program is the same for every seed, and its cache serves runs of other seeds.
    """

    program: Any
    seed: Any  # int32 [], on the devices

    def __call__(self, *arguments: Any) -> Any:
        return self.program(*arguments, self.seed)

    def lower(self, *arguments: Any) -> "Seeded":
        """Traces, as `jax.jit` does."""
        return dataclasses.replace(self, program=self.program.lower(*arguments, self.seed))

    def compile(self) -> "Seeded":
        """Compiles what was traced."""
        return dataclasses.replace(self, program=self.program.compile())

    def __getattr__(self, name: str) -> Any:
        return getattr(self.program, name)
