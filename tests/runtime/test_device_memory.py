from types import SimpleNamespace

import jax
import pytest

from modessm_jax.runtime.device_memory import describe_memory, memory_limit

GIB = 2**30


def compiled(*, arguments: float, results: float, shared: float, temporary: float):
    found = SimpleNamespace(
        argument_size_in_bytes=arguments * GIB,
        output_size_in_bytes=results * GIB,
        alias_size_in_bytes=shared * GIB,
        temp_size_in_bytes=temporary * GIB,
    )
    return SimpleNamespace(memory_analysis=lambda: found)


def test_results_in_the_place_of_arguments_count_once() -> None:
    program = compiled(arguments=5, results=5, shared=4, temporary=20)
    assert describe_memory(program, 80 * GIB) == "26.0 of 80.0 GiB of the device's memory"


@pytest.mark.parametrize("limit", [24, 28])
def test_what_hardly_fits_comes_with_what_to_change(limit: int) -> None:
    program = compiled(arguments=5, results=5, shared=4, temporary=20)
    line = describe_memory(program, limit * GIB)
    for key in ("training.accumulate", "model.remat", "data.batch_size"):
        assert f"--config.{key}=" in line or f"smaller --config.{key}" in line


def test_a_program_of_jax_tells_its_memory() -> None:
    program = jax.jit(lambda x: x + 1).lower(jax.ShapeDtypeStruct((GIB // 4,), "float32")).compile()
    assert describe_memory(program, 4 * GIB).startswith("2.0 of 4.0 GiB")


def test_the_least_of_the_devices_is_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    devices = [
        SimpleNamespace(memory_stats=lambda limit=limit: limit and {"bytes_limit": limit})
        for limit in (None, 7, 5)
    ]
    monkeypatch.setattr(jax, "local_devices", lambda: devices)
    assert memory_limit() == 5
    monkeypatch.setattr(jax, "local_devices", lambda: devices[:1])
    assert memory_limit() is None
