"""Where compiled programs are kept."""

import shutil

import jax
import pytest

from modessm_jax.runtime.compile_cache import compile_cache


def place() -> str | None:
    return jax.config.jax_compilation_cache_dir  # pyright: ignore


@pytest.fixture(autouse=True)
def unnamed():
    named = place()
    jax.config.update("jax_compilation_cache_dir", None)
    yield
    jax.config.update("jax_compilation_cache_dir", named)


def test_programs_are_kept_in_the_folder_while_the_context_lasts(tmp_path) -> None:
    with compile_cache(tmp_path):
        assert place() == str(tmp_path)
    assert place() is None


def test_a_place_the_user_has_named_is_left_alone(tmp_path) -> None:
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "named"))
    with compile_cache(tmp_path):
        assert place() == str(tmp_path / "named")
    assert place() == str(tmp_path / "named")


@pytest.mark.slow
def test_a_folder_that_has_moved_serves_on(tmp_path) -> None:
    name = "jax_persistent_cache_min_compile_time_secs"
    before = jax.config.jax_persistent_cache_min_compile_time_secs  # pyright: ignore
    jax.config.update(name, 0.0)

    def program(x):
        return 3 * x + 1

    def kept(folder) -> set[str]:
        with compile_cache(folder):
            jax.jit(program).lower(1.0).compile()
        return {file.name for file in folder.glob("*-cache")}

    first = kept(tmp_path / "here")
    shutil.copytree(tmp_path / "here", tmp_path / "there")
    jax.clear_caches()
    assert first and kept(tmp_path / "there") == first
    jax.config.update(name, before)
