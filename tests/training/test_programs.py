"""Where compiled programs are kept."""

import jax

from modessm_jax.training.programs import compiled_programs


def test_programs_are_kept_in_the_workdir_unless_the_user_names_a_place(tmp_path):
    def place():
        return jax.config.jax_compilation_cache_dir  # pyright: ignore

    named = place()
    with compiled_programs(tmp_path):
        assert place() == named
    jax.config.update("jax_compilation_cache_dir", None)
    with compiled_programs(tmp_path):
        assert place() == str(tmp_path)
    assert place() is None
    jax.config.update("jax_compilation_cache_dir", named)
