import jax
import pytest

from modessm_jax.training.programs import compiled_programs


@pytest.fixture(scope="module")
def shared_programs(tmp_path_factory):
    """All runs of a module are of a few programs; compiles each once, in a place of its own."""
    threshold = jax.config.jax_persistent_cache_min_compile_time_secs  # pyright: ignore
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    with compiled_programs(tmp_path_factory.mktemp("programs")):
        yield
    jax.config.update("jax_persistent_cache_min_compile_time_secs", threshold)
