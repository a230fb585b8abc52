"""Shared fixtures; JAX gets four pretend devices and refuses silent broadcasting."""

import gc
import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# Compiling is most of what the tests and their child processes do; what is computed does not
# depend on how well. XLA's older code generator for CPUs takes half the time of the default one.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
os.environ.setdefault("XLA_FLAGS", "--xla_cpu_use_fusion_emitters=false")

import jax
import pytest

jax.config.update("jax_num_cpu_devices", 4)
jax.config.update("jax_numpy_rank_promotion", "raise")

# Else a tenth of the time goes into the search for garbage, see also `frozen`.
gc.set_threshold(50_000)

# The files that take longest. They come first, or at the end one process would wait for another.
LONGEST = (
    "test_contract", "test_loop", "test_rollback", "test_job", "test_modessm", "test_step",
    "test_train", "test_ssm", "test_stages", "test_processes", "test_checkpoints", "test_decoder",
    "test_multiscale", "test_load", "test_transforms", "test_build", "test_simulate",
)  # fmt: skip

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.stem not in LONGEST)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real recordings; tests that need it are skipped where it is absent."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"no real recordings at {SHARED_DATA}")
    return SHARED_DATA


@pytest.fixture(scope="module", autouse=True)
def frozen() -> None:
    """What earlier modules leave (JAX's caches) is not searched for garbage again and again."""
    gc.freeze()


@pytest.fixture(scope="module")
def shared_programs(tmp_path_factory):
    """All runs of a module are of a few programs; compiles each once, in a place of its own."""
    from modessm_jax.runtime.compile_cache import compile_cache

    threshold = jax.config.jax_persistent_cache_min_compile_time_secs  # pyright: ignore
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    with compile_cache(tmp_path_factory.mktemp("programs")):
        yield
    jax.config.update("jax_persistent_cache_min_compile_time_secs", threshold)
