"""Where compiled programs are kept."""

import jax
import pytest

from modessm_jax.training.programs import compiled_programs


def place() -> str | None:
    return jax.config.jax_compilation_cache_dir  # pyright: ignore


@pytest.fixture(autouse=True)
def unnamed():
    named = place()
    jax.config.update("jax_compilation_cache_dir", None)
    yield
    jax.config.update("jax_compilation_cache_dir", named)


def test_programs_are_kept_in_the_folder_while_the_context_lasts(tmp_path) -> None:
    with compiled_programs(tmp_path):
        assert place() == str(tmp_path)
    assert place() is None


def test_a_place_the_user_has_named_is_left_alone(tmp_path) -> None:
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "named"))
    with compiled_programs(tmp_path):
        assert place() == str(tmp_path / "named")
    assert place() == str(tmp_path / "named")
